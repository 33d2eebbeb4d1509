"""The published networks as a deployable: ARFE and DRFN at full size, side by side or one guiding the other."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from derain.train.deployable import Deployable, DeployableSpec
from derain.train.networks import arfe, drfn
from derain.train.networks.arfe import Arfe, ArfeConfig
from derain.train.networks.drfn import GRID, Drfn, DrfnConfig, PhysicalParts

_MINIMUM = 2 * GRID


class FullConfig(BaseModel):
    """Sizes and switches of the full networks; the defaults are ACGF's published figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extractor: ArfeConfig = ArfeConfig()
    generator: DrfnConfig = DrfnConfig()


class Removal(NamedTuple):
    """What a derainer made of a rainy picture."""

    derained: Tensor  #: (B, 3, H, W), not clamped: gradients of a training loss must not die at 0 and 1
    attention: Tensor  #: F, (B, 1, H, W), in [0, 1]
    parts: PhysicalParts | None = None  #: with the physical prior


class FullDerainer(Deployable):
    """ARFE and DRFN. With ``generator.attention = "parallel"`` DRFN sees the picture alone, as published for ACGF."""

    def __init__(self, config: FullConfig, *, system: str) -> None:
        super().__init__()
        self.extractor = Arfe(config.extractor)
        self.generator = Drfn(config.generator)
        field = receptive_field(config)
        reason = "every pixel depends on a neighbourhood only, and no statistics are taken over the frame"
        if field is None:
            reason = "the extractor's tokens, or the air light, are means of features over the whole frame"
        self.spec = DeployableSpec(
            system=system,
            variant="full",
            multiple_of=GRID,
            minimum=_MINIMUM,
            receptive_field=field,
            tiling="unsound" if field is None else "sound",
            tiling_reason=reason,
            attention="learned",
        )

    def remove(self, rainy: Tensor, guide: Tensor | None = None) -> Removal:
        """Derain (B, 3, H, W) in [0, 1]; with ``guide`` that map is taken for F and the extractor does not run."""
        attention: Tensor = self.extractor(rainy) if guide is None else guide
        derained, parts = self.generator(rainy, attention)
        return Removal(derained, attention, parts)

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        removal = self.remove(rainy)
        return removal.derained.clamp(0.0, 1.0), removal.attention

    def attention_only(self, rainy: Tensor) -> Tensor:
        attention: Tensor = self.extractor(rainy)
        return attention


def receptive_field(config: FullConfig) -> int | None:
    """Side in pixels of the square an output pixel depends on, or None for the whole frame."""
    extractor, generator = arfe.receptive_field(config.extractor), drfn.receptive_field(config.generator)
    if extractor is None or generator is None:
        return None
    return extractor + generator - 1 if config.generator.attention == "guide" else max(extractor, generator)
