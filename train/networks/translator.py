"""The picture-to-picture generator at edge size for DerainCycleGAN and DCD-GAN: ``out = in - S`` on the 1/4 grid.

A stride-4 stem, one residual stage called several times, and a tail that starts at zero, so that a young network is
the identity and colours cannot jump. No normalisation: InstanceNorm's statistics would make tiles differ from the
whole frame and quantise badly (SYSTEMS.md 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.train.networks.blocks import ResidualStage, conv3, init_he, widen, zero_init
from derain.train.networks.uarse import GRID, centred_field

_STEM_KERNEL = 12


class EdgeTranslator(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1], H and W multiples of 4, to the same, not clamped.

    Args:
        guided: a map (B, 1, H, W) comes in as a fourth channel.
    """

    def __init__(self, width: int, stages: int, *, guided: bool = False) -> None:
        super().__init__()
        self.stages = stages
        inputs = 4 if guided else 3
        self.stem = nn.Conv2d(inputs, width, _STEM_KERNEL, stride=GRID, padding=(_STEM_KERNEL - GRID) // 2)
        self.stage = ResidualStage(width)
        self.tail = conv3(width, 3 * GRID * GRID)
        init_he(self)
        zero_init(self.tail)
        self.receptive_field = centred_field(1 + 2 * stages + 1)
        self.tap_channels = [width] * (stages + 1)

    def encode(self, picture: Tensor, guide: Tensor | None = None) -> list[Tensor]:
        """Features (B, width, H/4, W/4): after the stem and after every stage; ``decode`` goes on from the last."""
        x = picture if guide is None else torch.cat([picture, guide.to(picture.dtype)], dim=1)
        h0 = self.stem(x)
        features = [h0]
        for _ in range(self.stages):
            features.append(self.stage(features[-1], h0))
        return features

    def decode(self, features: list[Tensor], picture: Tensor) -> Tensor:
        return picture - widen(F.pixel_shuffle(self.tail(features[-1]), GRID))

    def forward(self, picture: Tensor, guide: Tensor | None = None) -> Tensor:
        return self.decode(self.encode(picture, guide), picture)
