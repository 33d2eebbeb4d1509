"""Do the pictures that were given fit what the recipe takes? What does not is told before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Set

from derain.errors import DataError
from derain.train.data.folders import Pictures
from derain.train.systems.base import Needs


def check_pictures(pictures: Pictures, first: Needs) -> None:
    """Refuse a run whose first step would find nothing to learn from.

    Raises:
        DataError: the step takes unpaired pictures alone, and a side is missing.
    """
    if first.unpaired and not first.pairs and not (pictures.rainy and pictures.clean):
        missing = [side for side in ("rainy", "clean") if not getattr(pictures, side)]
        raise DataError(
            f"This recipe learns from unpaired pictures, and no {' and no '.join(missing)} ones were given",
            fix="Give both --rainy FOLDER and --clean FOLDER",
        )


def unused_pictures(pictures: Pictures, needs: Set[Needs]) -> Iterator[str]:
    """A line for the log for each kind of pictures that no step trains on, given what the run's steps take."""
    if not any(need.unpaired for need in needs):
        if pictures.rainy:
            yield "Note: this recipe takes no unpaired pictures, so --rainy is not used"
    elif bool(pictures.rainy) != bool(pictures.clean):
        lacking = "--clean" if pictures.rainy else "--rainy"
        yield f"Note: without {lacking} there is no cycle: this run learns from pairs and synthetic rain alone"
    if pictures.pairs and not any(need.pairs for need in needs):
        yield "Note: this recipe learns from unpaired pictures alone: --pairs are measured on, not trained on"
