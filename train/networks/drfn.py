"""DRFN at full size: the rain and derain-fog network, the generator of ACGF and AUEID (SYSTEMS.md 1.4, 1.8).

DerainCycleGAN's generator: two stages down, dilated convolutions on the 1/4 grid, two stages up with skips added.
What its output means is a choice of its own: see :class:`DrfnConfig`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from derain.train.networks.blocks import conv3, init_he, widen, zero_init

GRID = 4
DILATIONS = (1, 1, 2, 4, 8, 16, 1, 1)
_GAIN_LOG_RANGE = (-1.0, 3.0)
_LEAST_TRANSMISSION = 0.1


class DrfnConfig(BaseModel):
    """Size, input and output of the generator.

    Parameters at width 64: 6,064,579 with ``attention = "parallel"`` and residual ``none`` or ``add`` (the published
    network), 1,600 more with ``guide``, 1,542 more with residual ``affine``. ``prior = "physics"`` with ``guide`` makes
    6,094,952: without it one has the published 6,066,179, less two output channels (578), plus the heads of
    transmission (257) and air light (16,643) and the refinement (12,451).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=64, ge=4, le=256, multiple_of=2)
    attention: Literal["guide", "parallel"] = Field(
        default="parallel", description="guide: the map F is a fourth input channel; parallel: the picture alone"
    )
    residual: Literal["none", "add", "affine"] = Field(
        default="affine", description="none: J = output; add: J = I + output; affine: J = I (1 + g) + b - output"
    )
    prior: Literal["none", "physics"] = Field(
        default="none", description="physics: predict T, A, S, invert the degradation model, refine; no residual then"
    )


class PhysicalParts(NamedTuple):
    """The parts of the degradation model that the generator believes to see, in units of the range [0, 1]."""

    streaks: Tensor  #: S, (B, 1, H, W), not negative
    transmission: Tensor  #: T, (B, 1, H, W), in [0, 1]
    airlight: Tensor  #: A, (B, 3, 1, 1), in [0, 1]


def invert(rainy: Tensor, parts: PhysicalParts) -> Tensor:
    """The clean picture by the degradation model: ``(I - (1 - T) A) / max(T, 0.1) - S`` (SYSTEMS.md 1.8)."""
    t = parts.transmission
    return (rainy - (1 - t) * parts.airlight) / t.clamp(min=_LEAST_TRANSMISSION) - parts.streaks


class _Up(nn.Module):
    """Transposed 4x4 convolution of stride 2, its chequerboard averaged away, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.avg_pool2d(F.pad(self.layer(x), (1, 0, 1, 0), mode="reflect"), 2, stride=1))


def _relu(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU())))


class _Trunk(nn.Module):
    """Picture (and map) to features on the 1/4 grid (4 widths) and at full resolution (half a width)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        w = width
        self.a = _relu(nn.Conv2d(inputs, w, 5, padding=2))
        self.b = _relu(conv3(w, 2 * w, stride=2), conv3(2 * w, 2 * w))
        self.c = _relu(conv3(2 * w, 4 * w, stride=2), *(conv3(4 * w, 4 * w, dilation=d) for d in DILATIONS))
        self.up1 = _Up(4 * w, 2 * w)
        self.d = _relu(conv3(2 * w, 2 * w))
        self.up2 = _Up(2 * w, w)
        self.e = _relu(conv3(w, w // 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r1 = self.a(x)
        r2 = self.b(r1)
        coarse = self.c(r2)
        fine = self.d(self.up1(coarse) + r2)
        return coarse, self.e(self.up2(fine) + r1)


class _Haze(nn.Module):
    """``prior = "physics"``: transmission on the 1/4 grid and one air light a frame, from the coarse features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transmission = nn.Conv2d(4 * width, 1, 1)
        self.air = nn.Sequential(nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, 3))
        self.refine = nn.Sequential(conv3(8, 32), nn.ReLU(), conv3(32, 32), nn.ReLU(), conv3(32, 3))


class Drfn(nn.Module):
    """(rainy, F) to the derained picture, not clamped, and with the physical prior to the parts it took off."""

    def __init__(self, config: DrfnConfig) -> None:
        super().__init__()
        w = config.width
        self.guided = config.attention == "guide"
        self.residual = config.residual
        self.trunk = _Trunk(4 if self.guided else 3, w)
        self.tail = conv3(w // 2, 1 if config.prior == "physics" else 3)
        self.haze = _Haze(w) if config.prior == "physics" else None
        self.affine = nn.Conv2d(4 * w, 6, 1) if self.haze is None and config.residual == "affine" else None
        init_he(self)
        # All but `none` start as identity or close to it: no colour jumps while the discriminators are young.
        if self.haze is not None:
            assert self.haze.transmission.bias is not None
            zero_init(self.haze.transmission)
            nn.init.constant_(self.haze.transmission.bias, 3.0)
            last = self.haze.refine[-1]
            assert isinstance(last, nn.Conv2d)
            zero_init(last)
        elif config.residual != "none":
            zero_init(self.tail)
        if self.affine is not None:
            zero_init(self.affine)

    def forward(self, rainy: Tensor, attention: Tensor | None = None) -> tuple[Tensor, PhysicalParts | None]:
        """rainy (B, 3, H, W) in [0, 1], H and W multiples of 4; ``attention`` (B, 1, H, W) only where it guides."""
        x = rainy * 2 - 1
        if self.guided:
            assert attention is not None
            x = torch.cat([x, attention.to(x.dtype)], dim=1)
        coarse, fine = self.trunk(x)
        out = widen(self.tail(fine))
        if self.haze is not None:
            return self._physical(rainy, coarse, out, self.haze)
        if self.affine is not None:
            maps = _enlarge(widen(self.affine(coarse)))
            gain = torch.exp(maps[:, :3].clamp(*_GAIN_LOG_RANGE)) - 1
            return rainy + (rainy * gain + maps[:, 3:] - out), None
        return (rainy + out, None) if self.residual == "add" else (out * 0.5 + 0.5, None)

    @staticmethod
    def _physical(rainy: Tensor, coarse: Tensor, out: Tensor, haze: _Haze) -> tuple[Tensor, PhysicalParts]:
        parts = PhysicalParts(
            streaks=F.softplus(out - 3.0),
            transmission=torch.sigmoid(_enlarge(widen(haze.transmission(coarse)))),
            airlight=torch.sigmoid(widen(haze.air(coarse.mean((2, 3)))))[:, :, None, None],
        )
        scene = invert(rainy, parts)
        detail = haze.refine(torch.cat([rainy, scene, parts.streaks, parts.transmission], dim=1))
        return scene + widen(detail), parts


def _enlarge(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=float(GRID), mode="bilinear", align_corners=False)


def receptive_field(config: DrfnConfig) -> int | None:
    """Side in pixels of the square an output pixel depends on; None with the physical prior's air light."""
    if config.prior == "physics":
        return None
    to_coarse = 2 + 1 + 2 + 2 + GRID * sum(DILATIONS)
    # Up and left reach furthest: a transposed convolution 2 cells of its output, the averaging 1.
    from_coarse = 2 * (2 + 1) + 2 * 1 + (2 + 1) + 2
    return 2 * (to_coarse + from_coarse) + 1
