"""What ``derain export`` is asked to make of a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from derain.card import Profile
from derain.export.contract import Contract


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a network.

    Attributes:
        contract: how frames enter and leave.
        profile: sizes; equal ones fix the graph's shape.
        half: weights and most activations in float16, by explicit casts.
        name: of the model in its card; None takes the recipe's.
        pictures: folder of pictures for the parity check; None takes the sample that ships and generated ones.
        figures: reports of ``derain eval`` for the card; empty takes the figures of the run's own validation.
        tensorrt: also parse and build with TensorRT-RTX, for these compute capabilities such as ``SM86``.
    """

    profile: Profile
    contract: Contract = field(default_factory=Contract)
    half: bool = False
    name: str | None = None
    pictures: Path | None = None
    figures: tuple[Path, ...] = ()
    tensorrt: tuple[str, ...] = ()
