"""The deployable of systems that have no attention extractor: the picture, and how much of it was taken off."""

from __future__ import annotations

from torch import Tensor, nn

from derain.train.deployable import Deployable, DeployableSpec


class RemovalDeployable(Deployable):
    """A generator as it is. The attention is the removed rain: the mean absolute change of the three channels."""

    def __init__(self, generator: nn.Module, spec: DeployableSpec) -> None:
        super().__init__()
        self.generator = generator
        self.spec = spec

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        derained = self.generator(rainy).clamp(0.0, 1.0)
        return derained, (rainy - derained).abs().mean(1, keepdim=True)

    def attention_only(self, rainy: Tensor) -> Tensor:
        """There is no extractor to run alone: this costs as much as deraining."""
        return self.forward(rainy)[1]
