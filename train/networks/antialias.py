"""Resampling that does not alias (Zhang, ICML 2019), and DCD-GAN's discriminator, which is built on it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2


class BlurDown(nn.Module):
    """Half the size through the filter [1, 2, 1], reflected at the border. H and W must be 2 or more."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(row, row).expand(channels, 1, 3, 3).clone()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.kernel.to(x.dtype), stride=2, groups=x.shape[1])


def blur_up(x: Tensor) -> Tensor:
    """Twice the size through the filter [1, 3, 3, 1], replicated at the border: bilinear interpolation is just that."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def instance_norm(x: Tensor) -> Tensor:
    """InstanceNorm without parameters: each channel of each picture to mean 0 and deviation 1.

    By way of group normalisation with one channel a group. ``F.instance_norm`` gives wrong gradients, silently, for a
    batch of one picture when the gradient arrives channels-last (torch 2.13, CPU; off by more than their size).
    """
    return F.group_norm(x, x.shape[1])


class AntialiasedDiscriminator(nn.Module):
    """DCD-GAN's PatchGAN: 4x4 convolutions at stride 1, each followed by a blurred halving (SYSTEMS.md 3.1).

    Args:
        normalise: InstanceNorm without parameters after all but the first and last convolutions, as published.
    """

    def __init__(self, width: int = 64, layers: int = 3, *, normalise: bool = True) -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(3, width, 4, padding=1), nn.LeakyReLU(_SLOPE), BlurDown(width)]
        inputs = width
        for layer in range(1, layers + 1):
            outputs = width * min(1 << layer, 8)
            modules.append(nn.Conv2d(inputs, outputs, 4, padding=1))
            if normalise:
                modules.append(nn.GroupNorm(outputs, outputs, affine=False))
            modules.append(nn.LeakyReLU(_SLOPE))
            if layer < layers:
                modules.append(BlurDown(outputs))
            inputs = outputs
        modules.append(nn.Conv2d(inputs, 1, 4, padding=1))
        self.layers = nn.Sequential(*modules)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1], H and W 32 or more, to [scores (B, 1, h, w)]."""
        return [self.layers(picture * 2 - 1)]
