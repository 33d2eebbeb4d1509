"""ACGF, the asymmetric cycle GAN for rain with fog (Liu et al., Applied Intelligence 2024, arXiv 2202.09635).

The cycle is :class:`RainCycle`; RFDR draws a new rain from noise each time, and the rain discriminator has three
heads. Two variants: ``edge``, where the extractor guides the generator, and ``full``, the published networks, where
they work side by side (``full.generator.attention = "parallel"``) or one guides the other (``"guide"``).
"""

from __future__ import annotations

from derain.train.networks.discriminators import DiscriminatorConfig
from derain.train.systems.base import register_system
from derain.train.systems.cycle import CycleConfig, RainCycle


class AcgfConfig(CycleConfig):
    """The ``[config]`` table of an ACGF recipe."""

    discriminator_rain: DiscriminatorConfig = DiscriminatorConfig(kind="mixed")


@register_system
class Acgf(RainCycle):
    """The system ``acgf``."""

    name = "acgf"
    Config = AcgfConfig

    def __init__(self, config: AcgfConfig) -> None:
        super().__init__(config)
        # Side by side, DRFN makes no use of F: extracting one from the generated rain would be work thrown away.
        self.same_guide = config.variant == "full" and config.full.generator.attention == "parallel"
        self.diverse = True
