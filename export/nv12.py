"""NV12 to RGB inside the graph, so that a camera's two planes are handed over as they are.

Source of the constants: ITU-R BT.601-7 and BT.709-6, luma weights Kr and Kb; BT.709-6 table 3.5 for the limited range.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.export.contract import ColourMatrix, ColourRange

_LUMA_WEIGHTS: dict[ColourMatrix, tuple[float, float]] = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def nv12_to_rgb(y: Tensor, uv: Tensor, matrix: ColourMatrix, colour_range: ColourRange) -> Tensor:
    """Two planes to RGB.

    Chroma is upsampled by repetition (nearest): each U, V pair serves its 2x2 luma pixels. The colour conversion of
    chroma happens at half size, before the upsampling, which is the same and four times cheaper.

    Args:
        y: uint8 (B, H, W), H and W even.
        uv: uint8 (B, H/2, W/2, 2), U first.
        matrix: which luma weights.
        colour_range: ``limited`` or ``full``.

    Returns:
        float32 (B, 3, H, W) RGB, clamped to [0, 1].
    """
    kr, kb = _LUMA_WEIGHTS[matrix]
    kg = 1.0 - kr - kb
    y_offset, y_span, uv_span = (16.0, 219.0, 224.0) if colour_range == "limited" else (0.0, 255.0, 255.0)
    luma = (y.to(torch.float32) - y_offset) * (1.0 / y_span)
    chroma = (uv.to(torch.float32) - 128.0) * (1.0 / uv_span)
    u, v = chroma[..., 0], chroma[..., 1]
    red = v * (2.0 * (1.0 - kr))
    blue = u * (2.0 * (1.0 - kb))
    green = v * (-2.0 * (1.0 - kr) * kr / kg) + u * (-2.0 * (1.0 - kb) * kb / kg)
    difference = F.interpolate(torch.stack([red, green, blue], dim=1), scale_factor=2.0, mode="nearest")
    return (luma.unsqueeze(1) + difference).clamp(0.0, 1.0)
