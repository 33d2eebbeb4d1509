"""The options of ``derain run``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from derain.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class RunOptions:
    """The options of ``derain run``, as they were given."""

    model: str
    sources: list[str]
    output: str | None
    side_by_side: bool
    attention: bool
    gate: str | None
    rain_log: Path | None
    tile: int | None
    steady: float
    policy: str | None
    preview: bool
    preview_address: str
    preview_token: str | None
    backend: str
    threads: int | None
    codec: str
    crf: int
    force: bool
    once: bool


def one_of(value: str, choices: Sequence[T], option: str) -> T:
    """The choice that is written like ``value``.

    Raises:
        UsageError: there is none.
    """
    for choice in choices:
        if choice == value:
            return choice
    raise UsageError(f"{option} is '{value}'", expected=f"one of: {', '.join(map(str, choices))}")
