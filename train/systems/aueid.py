"""AUEID, asymmetric unsupervised end-to-end image deraining (JCA 2024, doi 10.11772/j.issn.1001-9081.2023030367).

Rain-Clean-Rain and Clean-Rain-Clean with three networks: removal, feature extraction, generation. What the abstract
adds to ACGF's cycle: the removal path is given the extracted rain-fog features, and the degradation model as a prior.
Only the abstract could be had; SYSTEMS.md 1.8 says what is inferred. At full size DRFN predicts transmission, air
light and streaks, inverts the model in closed form and refines; at edge size the generator's affine map is that
inverse already. Both removals are guided by the F of the rainy picture.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from derain.train.networks.drfn import DrfnConfig
from derain.train.networks.full import FullConfig
from derain.train.systems.base import register_system
from derain.train.systems.cycle import CycleConfig, CycleLosses, RainCycle


class AueidLosses(CycleLosses):
    """As ACGF's, with the degradation model weighing five times as much."""

    physics: float = Field(default=5.0, ge=0, description="the degradation model explains the rainy picture")


class AueidDrfnConfig(DrfnConfig):
    """The removal network: guided, and with the degradation model as its prior."""

    attention: Literal["guide", "parallel"] = "guide"
    prior: Literal["none", "physics"] = "physics"


class AueidFullConfig(FullConfig):
    """Extractor and removal network at full size."""

    generator: AueidDrfnConfig = AueidDrfnConfig()


class AueidConfig(CycleConfig):
    """The ``[config]`` table of an AUEID recipe."""

    full: AueidFullConfig = AueidFullConfig()
    loss: AueidLosses = AueidLosses()

    @model_validator(mode="after")
    def _guided(self) -> Self:
        if self.full.generator.attention != "guide":
            raise ValueError("full.generator.attention: AUEID's removal is guided by the extractor")
        if self.full.extractor.attn == "none":
            raise ValueError("full.extractor.attn: AUEID's extractor needs self-similarity and local discrepancy")
        if self.network.trunk != "own":
            raise ValueError("network.trunk: the second removal gets the map alone, not the extractor's features")
        return self


@register_system
class Aueid(RainCycle):
    """The system ``aueid``."""

    name = "aueid"
    Config = AueidConfig

    def __init__(self, config: AueidConfig) -> None:
        super().__init__(config)
        self.same_guide = True
        self.diverse = False
