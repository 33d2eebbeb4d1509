"""The contract of a system: how the trainer trains it, and what it hands out.

To add a system, copy :mod:`derain.train.systems.template`: a pydantic config, the networks, one ``training_step``
that returns named losses, and the ``derainer``, a :class:`Deployable`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from derain.errors import DataError, UsageError
from derain.train import parallel
from derain.train.deployable import Deployable

Losses = dict[str, Tensor]


class SystemConfig(BaseModel):
    """The ``[network]`` and ``[loss]`` tables of a recipe; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OwnRate(NamedTuple):
    """Parameters of a group that learn at another rate than the rest of it.

    ``factor`` multiplies the group's learning rate at every step; ``betas`` are Adam's, None for the group's.
    """

    parameters: list[nn.Parameter]
    factor: float
    betas: tuple[float, float] | None = None


class Needs(NamedTuple):
    """What pictures a step wants."""

    pairs: bool
    unpaired: bool


@dataclass
class Crops:
    """Pictures float32 (B, 3, h, w) RGB in [0, 1], and the thumbnails (B, 9, 32, 32) of what they were cut from."""

    picture: Tensor
    thumb: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> Crops:
        return Crops(change(self.picture), change(self.thumb))


@dataclass
class Batch:
    """One step's crops. ``truth`` is the ground truth of ``paired``; ``rainy`` and ``clean`` are unpaired.

    ``labels``, float32 (B, 2), says of each paired crop whether it holds rain and whether fog: 1, 0, or NaN where
    nobody knows. A side is None in a step that does not need it.
    """

    paired: Crops | None = None
    truth: Tensor | None = None
    rainy: Crops | None = None
    clean: Crops | None = None
    labels: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""
        return Batch(
            None if self.paired is None else self.paired.each(change),
            None if self.truth is None else change(self.truth),
            None if self.rainy is None else self.rainy.each(change),
            None if self.clean is None else self.clean.each(change),
            None if self.labels is None else change(self.labels),
        )

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
        return self.each(lambda tensor: tensor.to(device, dtype, non_blocking=True))

    def pin_memory(self) -> Batch:
        """For the data loader: in page-locked memory, from which a GPU copies while it works."""
        return self.each(lambda tensor: tensor.pin_memory())

    def both_sides(self) -> tuple[Tensor, Tensor]:
        """The unpaired pictures, rainy and clean.

        Raises:
            DataError: there are none.
        """
        if self.rainy is None or self.clean is None:
            raise DataError(
                "This system learns from unpaired pictures, and none were given",
                fix="Give both --rainy FOLDER and --clean FOLDER",
            )
        return self.rainy.picture, self.clean.picture


@dataclass(frozen=True)
class StepContext:
    """What the trainer gives a step besides its batch.

    Attributes:
        step: number of this step, from 0.
        generator: on the CPU, seeded from (seed, step) alone, so that a resumed run draws what the uninterrupted one
            would. Every process has it alike: draw from it what the whole batch shares, and noise that differs from
            picture to picture with :meth:`randn`.
        optimise: ``optimise(group, loss)`` clears the group's gradients, goes backward, clips, and steps; where
            gradients are accumulated, only once in several batches. ``loss`` must reach the parameters of its own
            group alone (see :class:`frozen`). The derainer's parameters belong to the group ``generator``.
    """

    step: int
    generator: torch.Generator
    optimise: Callable[[str, Tensor], None]

    def randn(self, *shape: int) -> Tensor:
        """Noise N(0, 1) for this process's part of the batch, ``shape[0]`` pictures, as one process would draw it."""
        return parallel.randn(shape, self.generator)


class System(nn.Module, ABC):
    """A trainable system. Subclasses set ``name`` and ``Config`` and build their networks in ``__init__``."""

    name: ClassVar[str]
    Config: ClassVar[type[SystemConfig]]
    derainer: Deployable

    @abstractmethod
    def __init__(self, config: Any) -> None:
        super().__init__()

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by optimizer group, such as ``generator`` and ``discriminator``."""

    def own_rates(self) -> list[OwnRate]:
        """What of the groups learns at a rate of its own."""
        return []

    @abstractmethod
    def needs(self, step: int) -> Needs:
        """What pictures the step with this number wants."""

    def notes(self) -> list[str]:
        """Lines for the run's log: which of several ways a loss goes, and the like."""
        return []

    def rain(self, clean: Tensor, rainy: Tensor, generator: torch.Generator) -> Tensor:
        """Rain on clean pictures, as it falls in rainy ones of any scene; other draws make other rain.

        Both (B, 3, H, W) in [0, 1], of one size, H and W multiples of 16; the result is clamped to [0, 1].

        Raises:
            UsageError: this system does not learn to.
        """
        raise UsageError(
            f"The system '{self.name}' cannot put the rain of one picture on another",
            fix="Use a checkpoint of acgf, aueid or derain-cyclegan",
        )

    @abstractmethod
    def training_step(self, batch: Batch, context: StepContext) -> Losses:
        """Optimise every group once and return the losses, detached scalars by name."""


class frozen:  # noqa: N801 - reads as a statement: with frozen(discriminator)
    """Within it a network's parameters collect no gradient; gradients still flow through to its input."""

    def __init__(self, *networks: nn.Module) -> None:
        self.parameters = [p for network in networks for p in network.parameters()]

    def __enter__(self) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(True)


_REGISTRY: dict[str, type[System]] = {}


def register_system(system: type[System]) -> type[System]:
    """Class decorator: make a system selectable by its name in a recipe."""
    if system.name in _REGISTRY:
        raise ValueError(f"system '{system.name}' is registered twice")
    _REGISTRY[system.name] = system
    return system


def find_system(name: str) -> type[System]:
    """The system of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in _REGISTRY:
        raise UsageError(f"There is no system '{name}'", expected=f"one of {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name]
