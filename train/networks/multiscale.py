"""The multi-scale discriminator of DerainCycleGAN and ACGF, which is DRIT's (SYSTEMS.md 1.6, 2.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.01


class MultiScaleDiscriminator(nn.Module):
    """One discriminator without normalisation for each of three scales; 8.27 M parameters at width 64."""

    def __init__(self, width: int = 64, layers: int = 4, scales: int = 3) -> None:
        super().__init__()
        self.scales = nn.ModuleList(self._judge(width, layers) for _ in range(scales))

    @staticmethod
    def _judge(width: int, layers: int) -> nn.Sequential:
        modules: list[nn.Module] = []
        inputs = 3
        for layer in range(layers):
            outputs = width << layer
            modules += [nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 4, stride=2), nn.LeakyReLU(_SLOPE)]
            inputs = outputs
        return nn.Sequential(*modules, nn.Conv2d(inputs, 1, 1))

    def forward(self, picture: Tensor, scales: int | None = None) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] to the score maps (B, 1, h, w), finest scale first.

        At the coarsest scale H and W must still be 2 to the power of ``layers`` or more: 64 pixels by default.

        Args:
            scales: how many of the finest scales; None all.
        """
        x = picture * 2 - 1
        scores = []
        for index, judge in enumerate(self.scales):
            if index == scales:
                break
            if index:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            scores.append(judge(x))
        return scores
