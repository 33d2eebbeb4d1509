"""RFDR: the rain-fog decoupling and reorganisation network, clean picture to rainy picture (SYSTEMS.md 1.5).

It decouples what it wants to add into the parts of the heavy-rain degradation model, streaks S, transmission T and air
light A, and reorganises them into ``I = T (B + S) + (1 - T) A``. One channel of streaks, T at a quarter of the
resolution and three numbers for A cannot carry a copy of the picture: that is what keeps the cycle honest.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from derain.train import parallel
from derain.train.networks.blocks import conv3, widen, zero_init

NOISE_CHANNELS = 4
_GRID = 4


class RfdrConfig(BaseModel):
    """Size of RFDR and the degradation model inside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=16, ge=4, le=256, description="64 is the full size")
    model: Literal["heavy", "rain", "screen", "none"] = Field(
        default="heavy", description="heavy: T(B+S)+(1-T)A; rain: B+S; screen: 1-(1-B)(1-S); none: refinement only"
    )


class RainParts(NamedTuple):
    """What RFDR adds. All in units of the picture's range [0, 1]."""

    rainy: Tensor  #: (B, 3, H, W), refined
    unrefined: Tensor  #: (B, 3, H, W), the degradation model's own output
    streaks: Tensor  #: S, (B, 1, H, W), not negative
    transmission: Tensor  #: T, (B, 1, H, W), in [0, 1]
    airlight: Tensor  #: A, (B, 3, 1, 1), in [0, 1]


def reorganise(clean: Tensor, streaks: Tensor, transmission: Tensor, airlight: Tensor, model: str) -> Tensor:
    """The degradation model, from its parts (HeavyRainRemoval, CVPR 2019, eq. 3)."""
    if model == "heavy":
        return transmission * (clean + streaks) + (1 - transmission) * airlight
    if model == "rain":
        return clean + streaks
    if model == "screen":
        return 1 - (1 - clean) * (1 - streaks)
    return clean


class Rfdr(nn.Module):
    """(clean, attention, noise) to :class:`RainParts`. H and W must be multiples of 4."""

    def __init__(self, config: RfdrConfig) -> None:
        super().__init__()
        self.model = config.model
        w = config.width
        half = w // 2
        self.e1 = nn.Conv2d(4, w, 5, padding=2)
        self.e2 = nn.Sequential(conv3(w, 2 * w, stride=2), nn.ReLU(), conv3(2 * w, 2 * w), nn.ReLU())
        self.e3 = nn.Sequential(
            conv3(2 * w, 4 * w, stride=2),
            nn.ReLU(),
            *(layer for d in (1, 2, 4) for layer in (conv3(4 * w, 4 * w, dilation=d), nn.ReLU())),
        )
        self.rain1 = conv3(4 * w + NOISE_CHANNELS, 2 * w)
        self.rain2 = conv3(2 * w, w)
        self.rain3 = nn.Sequential(conv3(2 * w, half), nn.ReLU(), conv3(half, 1))
        self.fog = nn.Sequential(conv3(4 * w + NOISE_CHANNELS, w), nn.ReLU(), conv3(w, w), nn.ReLU(), conv3(w, 1))
        self.air = nn.Sequential(nn.Linear(4 * w, w), nn.ReLU(), nn.Linear(w, 3))
        self.refine = nn.Sequential(conv3(8, half), nn.ReLU(), conv3(half, half), nn.ReLU(), conv3(half, 3))
        last = self.refine[-1]
        assert isinstance(last, nn.Conv2d)
        zero_init(last)
        haze = self.fog[-1]
        assert isinstance(haze, nn.Conv2d)
        assert haze.bias is not None
        # Rain in light haze is what most pictures show: start at T = 0.88, not at 0.5.
        nn.init.constant_(haze.bias, 2.0)

    @staticmethod
    def noise(clean: Tensor, generator: torch.Generator | None) -> Tensor:
        """A draw of the diversity noise z (B, 4, H/4, W/4), N(0, 1)."""
        b, _, h, w = clean.shape
        z = parallel.randn((b, NOISE_CHANNELS, h // _GRID, w // _GRID), generator)
        return z.to(clean.device)

    def forward(self, clean: Tensor, attention: Tensor, noise: Tensor | None = None) -> RainParts:
        """clean (B, 3, H, W) and attention (B, 1, H, W) in [0, 1]; noise as from :meth:`noise`, zero when None."""
        e1 = F.relu(self.e1(torch.cat([clean, attention], dim=1)))
        e3 = self.e3(self.e2(e1))
        if noise is None:
            noise = e3.new_zeros(e3.shape[0], NOISE_CHANNELS, *e3.shape[2:])
        code = torch.cat([e3, noise.to(e3.dtype)], dim=1)

        rain = F.interpolate(F.relu(self.rain1(code)), scale_factor=2.0, mode="bilinear", align_corners=False)
        rain = F.interpolate(F.relu(self.rain2(rain)), scale_factor=2.0, mode="bilinear", align_corners=False)
        streaks = F.softplus(widen(self.rain3(torch.cat([rain, e1], dim=1))) - 2.0)
        haze = F.interpolate(widen(self.fog(code)), scale_factor=float(_GRID), mode="bilinear", align_corners=False)
        transmission = torch.sigmoid(haze)
        airlight = torch.sigmoid(widen(self.air(e3.mean((2, 3)))))[:, :, None, None]

        unrefined = reorganise(clean, streaks, transmission, airlight, self.model)
        detail = self.refine(torch.cat([unrefined, clean, streaks, transmission], dim=1))
        return RainParts(unrefined + widen(detail), unrefined, streaks, transmission, airlight)
