"""Which pictures to train and to choose on: folders, pairs, and a held-out split by scene."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from derain.errors import DataError, MediaError, UsageError
from derain.images import list_images
from derain.train.data.layouts import find_pairs, has_both_sides
from derain.train.data.pairs import Pair
from derain.train.data.split import HeldOut

T = TypeVar("T")


@dataclass(frozen=True)
class Pictures:
    """What one run trains on, and what it is measured on while it trains.

    Attributes:
        rainy: rainy pictures without ground truth.
        clean: clean pictures: the other side of the cycle, and what synthetic rain falls on.
        pairs: rainy pictures with their ground truth.
        held_out: pairs that are never trained on; the validation set.
        origins: the folders given, for the checkpoint and the model card.
        weights: how often an item is drawn, for ``rainy``, ``clean`` and ``pairs``, in their order; all alike where
            there is no entry.
    """

    rainy: list[Path] = field(default_factory=list)
    clean: list[Path] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    held_out: list[Pair] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    weights: dict[str, list[float]] = field(default_factory=dict)


def parse_weighted(text: str | Path) -> tuple[Path, float]:
    """``DIR`` or ``DIR@WEIGHT``: a picture of a folder with weight 2 is drawn twice as often as one with weight 1.

    A folder whose own name looks like that is taken as it is.

    Raises:
        UsageError: the weight is not a number above zero.
    """
    path = Path(text)
    name, at, weight = str(text).rpartition("@")
    if not at or not name or path.is_dir():
        return path, 1.0
    try:
        value = float(weight)
    except ValueError:
        return path, 1.0
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"'{text}' has weight {weight}", expected="a number above zero after the @")
    return Path(name), value


def gather(
    rainy: Iterable[str | Path] = (),
    clean: Iterable[str | Path] = (),
    pairs: Iterable[str | Path] = (),
    split: str | Path | None = None,
    layout: str | None = None,
) -> Pictures:
    """Read the folders of a run, each as ``DIR`` or ``DIR@WEIGHT``, and take the held-out pictures of ``split`` away.

    Args:
        layout: of all the folders of pairs; None finds out (see :mod:`derain.train.data.layouts`).

    Raises:
        DataError: a folder or the split cannot be used (see :class:`HeldOut`), or nothing is left to train on.
        UsageError: a weight or layout that cannot be.
    """
    singles = {"rainy": [*map(parse_weighted, rainy)], "clean": [*map(parse_weighted, clean)]}
    paired = [*map(parse_weighted, pairs)]
    held = None
    if split is not None:
        folders = [folder for given in singles.values() for folder, _ in given]
        held = HeldOut(split, folders, [folder for folder, _ in paired], layout)
    result = Pictures()
    for kind, kept in (("rainy", result.rainy), ("clean", result.clean)):
        for folder, weight in singles[kind]:
            found = [path for path in _pictures(folder, kind) if held is None or not held.picture(path)]
            kept.extend(found)
            result.weights.setdefault(kind, []).extend([weight] * len(found))
            result.origins.append(folder.name)
    for folder, weight in paired:
        for pair in find_pairs(folder, layout):
            if held is not None and held.pair(pair):
                result.held_out.append(pair)
            else:
                result.pairs.append(pair)
                result.weights.setdefault("pairs", []).append(weight)
        result.origins.append("/".join(folder.resolve().parts[-2:]))
    if not result.clean and not result.pairs:
        raise DataError(
            "There is nothing to learn from: no clean pictures and no pairs",
            fix="Give --clean FOLDER (rain is then synthesised on it), --pairs FOLDER, or both",
        )
    return result


def _pictures(folder: Path, kind: str) -> list[Path]:
    try:
        return list_images(folder)
    except MediaError as error:
        if has_both_sides(folder):
            fix = f"Give --pairs {folder}, or its sub-folder of {kind} pictures"
            raise UsageError(f"--{kind} '{folder}' is a folder of pairs", fix=fix) from error
        raise


class Picker(Generic[T]):
    """Draws items, each as often as its weight says; without weights all alike."""

    def __init__(self, items: Sequence[T], weights: Sequence[float] = ()) -> None:
        self._items = items
        self._edges = None
        if len(set(weights)) > 1:
            self._edges = np.cumsum(weights) / np.sum(weights)

    def __call__(self, rng: np.random.Generator) -> T:
        if self._edges is None:
            return self._items[int(rng.integers(len(self._items)))]
        return self._items[min(int(np.searchsorted(self._edges, rng.random(), side="right")), len(self._items) - 1)]
