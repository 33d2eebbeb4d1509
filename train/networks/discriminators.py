"""Discriminators. Each returns a list of score maps, one per head, which ``losses/adversarial.py`` takes."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from derain.train.networks.multiscale import MultiScaleDiscriminator


class DiscriminatorConfig(BaseModel):
    """Widths of the stride-2 layers, and how many heads or scales. ``multiscale`` doubles its width at every layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: list[int] = Field(default=[32, 64, 128], min_length=2, max_length=5)
    kind: Literal["patch", "multiscale", "mixed", "mixed_ac"] = "patch"

    @model_validator(mode="after")
    def _doubling(self) -> Self:
        if self.kind == "multiscale" and any(b != 2 * a for a, b in pairwise(self.widths)):
            raise ValueError("widths of a multiscale discriminator double at every layer, as in [64, 128, 256, 512]")
        return self


class PatchDiscriminator(nn.Module):
    """PatchGAN without normalisation: stride-2 4x4 convolutions, then one score per patch (SYSTEMS.md 1.6)."""

    def __init__(self, widths: list[int], outputs: int = 1) -> None:
        super().__init__()
        inputs = 3
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            inputs = width
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] to [scores (B, 1, h, w)]."""
        return [self.layers(picture * 2 - 1)]


class MixedDiscriminator(nn.Module):
    """ACGF's mixed discriminator as three frequency bands: whole picture, rain (high-pass), fog (low-pass).

    The figure shows three outputs, "T/F, Rain T/F, Fog T/F"; that each head sees a band of its own is inferred
    (SYSTEMS.md 1.6, M1): rain is ``x - box9(x)``, fog ``avgpool8(x)``. ``HEAD_WEIGHTS`` weigh the three losses.
    """

    HEAD_WEIGHTS = (1.0, 0.5, 0.5)

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.whole = PatchDiscriminator(widths)
        self.rain = PatchDiscriminator(widths)
        self.fog = PatchDiscriminator(widths[:1])

    def forward(self, picture: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] to the score maps of the three heads."""
        box = F.avg_pool2d(picture, 9, stride=1, padding=4, count_include_pad=False)
        high = (picture - box) * 0.5 + 0.5
        return [*self.whole(picture), *self.rain(high), *self.fog(F.avg_pool2d(picture, 8))]


class AuxiliaryDiscriminator(nn.Module):
    """ACGF's mixed discriminator as an auxiliary classifier: real or fake, rain or none, fog or none.

    One trunk, three score maps (SYSTEMS.md 1.6, M2): closer to the figure's labels than frequency bands, but the last
    two heads learn from pictures that are known to hold rain or fog or neither: see ``Batch.labels``.
    """

    HEAD_WEIGHTS = (1.0, 0.5, 0.5)

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.trunk = PatchDiscriminator(widths, outputs=3)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] to the scores of real, rain and fog, each (B, 1, h, w)."""
        return list(self.trunk(picture)[0].split(1, dim=1))


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """The discriminator that ``config`` describes."""
    if config.kind == "mixed":
        return MixedDiscriminator(config.widths)
    if config.kind == "mixed_ac":
        return AuxiliaryDiscriminator(config.widths)
    if config.kind == "multiscale":
        return MultiScaleDiscriminator(config.widths[0], layers=len(config.widths))
    return PatchDiscriminator(config.widths)


def head_weights(discriminator: nn.Module) -> tuple[float, ...]:
    """Weights of a discriminator's score maps in the adversarial loss; scales count as one head, in equal parts."""
    if isinstance(discriminator, MixedDiscriminator | AuxiliaryDiscriminator):
        return discriminator.HEAD_WEIGHTS
    scales = len(discriminator.scales) if isinstance(discriminator, MultiScaleDiscriminator) else 1
    return (1.0 / scales,) * scales
