"""A whole system in one file, to copy: a small residual network that learns from pairs.

It works as it stands (a test trains it) but is not registered, so no recipe can name it. To make it yours:

1. Copy it, rename the classes and ``name``, put ``@register_system`` above the system, and import the new file in
   ``train/systems/__init__.py``.
2. Write a recipe, ``train/recipes/NAME.toml``, with ``system = "NAME"``.
3. Add a tiny configuration to the tables of ``tests/train``: the tests of the contract (gradients, exact resumption,
   export) then run over your system.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from derain.errors import DataError
from derain.train import losses
from derain.train.deployable import Deployable, DeployableSpec
from derain.train.networks.blocks import LEAK, conv3, zero_init
from derain.train.systems.base import Batch, Losses, Needs, StepContext, System, SystemConfig


class TemplateConfig(SystemConfig):
    """The ``[config]`` table of a recipe. An unknown key is an error; every key has a default and a range."""

    width: int = Field(default=16, ge=4, le=256, description="channels")


class TemplateDerainer(Deployable):
    """What is exported. Everything that training alone needs stays outside of it.

    Its operations must be ones that ONNX and TensorRT have, for any height and width that is a multiple of
    ``spec.multiple_of``: no adaptive pooling to a size other than 1, no Python branches on sizes.
    """

    def __init__(self, config: TemplateConfig) -> None:
        super().__init__()
        self.first = conv3(3, config.width)
        self.last = conv3(config.width, 3)
        zero_init(self.last)  # starts as the identity: no colour jumps while it knows nothing
        self.spec = DeployableSpec(
            system=Template.name,
            variant="edge",
            multiple_of=1,
            minimum=1,
            receptive_field=5,
            tiling="sound",
            tiling_reason="a pixel depends on its 5x5 neighbourhood alone",
            attention="removed_rain",
        )

    def raw(self, rainy: Tensor) -> Tensor:
        """Not clamped: a loss on it keeps its gradient at 0 and 1."""
        rain: Tensor = self.last(F.leaky_relu(self.first(rainy), LEAK))
        return rainy - rain

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        derained = self.raw(rainy).clamp(0, 1)
        return derained, (rainy - derained).abs().mean(1, keepdim=True)

    def attention_only(self, rainy: Tensor) -> Tensor:
        return self.forward(rainy)[1]


class Template(System):
    """The trainer asks for one training step; optimizers, schedule, averaging and checkpoints are the trainer's."""

    name = "template"
    Config = TemplateConfig
    derainer: TemplateDerainer

    def __init__(self, config: TemplateConfig) -> None:
        super().__init__(config)
        self.derainer = TemplateDerainer(config)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        # A GAN adds "discriminator"; in the generator's turn it goes through it `with frozen(self.discriminator)`.
        return {"generator": list(self.derainer.parameters())}

    def needs(self, step: int) -> Needs:
        return Needs(pairs=True, unpaired=False)

    def training_step(self, batch: Batch, context: StepContext) -> Losses:
        if batch.paired is None or batch.truth is None:
            raise DataError("This system learns from pairs, and none were given", fix="Give --pairs or --clean")
        loss = losses.charbonnier(self.derainer.raw(batch.paired.picture), batch.truth)
        context.optimise("generator", loss)
        return {"generator": loss.detach()}
