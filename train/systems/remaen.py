"""ReMAEN: recurrent multi-scale aggregation and enhancement (Yang and Lu, ICME 2019; SYSTEMS.md 4)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from derain.errors import DataError
from derain.train.deployable import DeployableSpec
from derain.train.losses.edge import edge_loss
from derain.train.networks.remaen import GRID, EdgeRemaen, Remaen
from derain.train.networks.removal import RemovalDeployable
from derain.train.systems.base import Batch, Losses, Needs, StepContext, System, SystemConfig, register_system
from derain.train.systems.variant import VariantConfig


class RemaenLosses(SystemConfig):
    """Weights, SYSTEMS.md 4.2."""

    squared: float = Field(default=1.0, ge=0, description="mean squared error")
    edge: float = Field(default=0.1, ge=0, description="mean squared error of the edges")


class RemaenEdge(SystemConfig):
    """Size of the ``edge`` network. The width is of channels on the 1/4 grid."""

    width: int = Field(default=32, ge=4, le=256, multiple_of=4)
    stages: int = Field(default=3, ge=1, le=16)


class RemaenFull(SystemConfig):
    """Size of the ``full`` network; the defaults are the published ones."""

    width: int = Field(default=32, ge=4, le=256, multiple_of=4)
    stages: int = Field(default=3, ge=1, le=16)


class RemaenConfig(VariantConfig):
    """The ``[config]`` table of a recipe."""

    network: RemaenEdge = RemaenEdge()
    full: RemaenFull = RemaenFull()
    loss: RemaenLosses = RemaenLosses()


def _derainer(config: RemaenConfig) -> RemovalDeployable:
    edge = config.variant == "edge"
    network: nn.Module = (
        EdgeRemaen(config.network.width, config.network.stages)
        if edge
        else Remaen(config.full.width, config.full.stages)
    )
    spec = DeployableSpec(
        system=RemaenSystem.name,
        variant=config.variant,
        multiple_of=GRID if edge else 1,
        minimum=2 * GRID if edge else 1,
        receptive_field=None,
        tiling="unsound",
        tiling_reason="channel attention takes its means over the whole frame, so a tile comes out differently",
        attention="removed_rain",
    )
    return RemovalDeployable(network, spec)


@register_system
class RemaenSystem(System):
    """Trains on pairs alone; there is nothing adversarial in it."""

    name = "remaen"
    Config = RemaenConfig
    config: RemaenConfig
    derainer: RemovalDeployable

    def __init__(self, config: RemaenConfig) -> None:
        super().__init__(config)
        self.config = config
        self.derainer = _derainer(config)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"generator": list(self.derainer.parameters())}

    def needs(self, step: int) -> Needs:
        return Needs(pairs=True, unpaired=False)

    def training_step(self, batch: Batch, context: StepContext) -> Losses:
        if batch.paired is None or batch.truth is None:
            raise DataError("ReMAEN learns from pairs, and none were given", fix="Give --pairs FOLDER")
        derained = self.derainer.generator(batch.paired.picture)
        terms: Losses = {
            "squared": self.config.loss.squared * torch.mean((derained - batch.truth) ** 2),
            "edge": self.config.loss.edge * edge_loss(derained, batch.truth),
        }
        total = torch.stack(list(terms.values())).sum()
        context.optimise("generator", total)
        return {name: value.detach() for name, value in terms.items()} | {"generator": total.detach()}
