"""The input and output contract of an exported graph: what the host hands over and what it gets back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from derain.card import Port

Frames = Literal["bgr", "rgb", "float", "nv12"]
Part = Literal["whole", "attention", "context", "tile"]
ColourMatrix = Literal["bt601", "bt709"]
ColourRange = Literal["limited", "full"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Contract:
    """How frames enter and leave the graph.

    Attributes:
        frames: ``bgr`` or ``rgb``: uint8 (B, H, W, 3) in and out; ``float``: float32 (B, 3, H, W) RGB in [0, 1] in and
            out; ``nv12``: two uint8 planes, y (B, H, W) and uv (B, H/2, W/2, 2) with U first, in, uint8 BGR out.
        matrix: the YUV standard of NV12; ITU-R BT.601 or BT.709.
        colour_range: of NV12: ``limited`` has Y in 16..235 and U, V in 16..240; ``full`` all in 0..255.
    """

    frames: Frames = "bgr"
    matrix: ColourMatrix = "bt709"
    colour_range: ColourRange = "limited"

    @property
    def encoding(self) -> str | None:
        """The name of the YUV encoding as the card states it; None for RGB."""
        return f"{self.matrix}-{self.colour_range}" if self.frames == "nv12" else None

    def inputs(self, part: Part) -> list[Port]:
        """The input ports of a part of the network, in the order of the graph."""
        if self.frames == "float":
            ports = [Port(name="frame", layout="NCHW", dtype="float32", channels="RGB", value_range=(0, 1))]
        elif self.frames == "nv12":
            ports = [
                Port(name="y", layout="NHW", dtype="uint8", channels="Y", value_range=(0, 255)),
                Port(name="uv", layout="NHWC", dtype="uint8", channels="UV", value_range=(0, 255)),
            ]
        else:
            order: Literal["BGR", "RGB"] = "BGR" if self.frames == "bgr" else "RGB"
            ports = [Port(name="frame", layout="NHWC", dtype="uint8", channels=order, value_range=(0, 255))]
        return [*ports, _CONTEXT] if part == "tile" else ports

    def outputs(self, part: Part) -> list[Port]:
        """The output ports of a part of the network, in the order of the graph."""
        attention = Port(name="attention", layout="NHW", dtype="float32", channels="attention", value_range=(0, 1))
        if part == "attention":
            return [attention]
        if part == "context":
            return [_CONTEXT]
        if self.frames == "float":
            derained = Port(name="derained", layout="NCHW", dtype="float32", channels="RGB", value_range=(0, 1))
        else:
            order: Literal["BGR", "RGB"] = "RGB" if self.frames == "rgb" else "BGR"
            derained = Port(name="derained", layout="NHWC", dtype="uint8", channels=order, value_range=(0, 255))
        return [derained, attention]


_CONTEXT = Port(
    name="context", layout="NC", dtype="float32", channels="context", value_range=(-_FLOAT32_MAX, _FLOAT32_MAX)
)
