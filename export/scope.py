"""Where a node came from, as its name tells it: ``part/module/.../Operator``."""

from __future__ import annotations

# Nodes that compute the whole frame's context, and those that spread gain and offset over the pixels. The names are
# those of attributes of CameraGraph and CellCameraGraph, whose scopes they carry.
CONTEXT_SCOPE = "context/"
FOG_SCOPE = "fog/"
# Their convolutions stay in float32, whatever the others compute in.
FLOAT_SCOPES = (CONTEXT_SCOPE, FOG_SCOPE)
