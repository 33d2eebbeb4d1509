"""Where a node came from, as its name tells it: ``part/module/.../Operator``."""

from __future__ import annotations

# Nodes that compute the whole frame's context. The name is that of CameraGraph's attribute, whose scope they carry.
CONTEXT_SCOPE = "context/"
