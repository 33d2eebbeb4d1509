"""A rainy picture and its ground truth, in two files or side by side in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from derain.errors import DataError
from derain.images import read_image

Pixels = NDArray[np.uint8]
Side = Literal["left", "right"]


@dataclass(frozen=True)
class Pair:
    """A rainy picture and its ground truth.

    Attributes:
        rainy_side: where the rain is when both are halves of one picture, and then ``rainy == clean``.
    """

    rainy: Path
    clean: Path
    rainy_side: Side | None = None

    def read(self, reader: Callable[[Path], Pixels] = read_image) -> tuple[Pixels, Pixels]:
        """Rainy and clean picture, uint8 (H, W, 3) in the reader's channel order; BGR by default.

        Raises:
            DataError: their sizes differ, or a picture of two halves has an odd width.
        """
        rainy = reader(self.rainy)
        if self.rainy_side is not None:
            left, right = halves(rainy, self.rainy)
            return (left, right) if self.rainy_side == "left" else (right, left)
        clean = reader(self.clean)
        if rainy.shape != clean.shape:
            raise DataError(
                f"'{self.rainy}' is {_size(rainy)} but the shape of its ground truth '{self.clean}' is {_size(clean)}",
                fix="Use pictures that were not resized or cropped",
            )
        return rainy, clean

    def read_clean(self, reader: Callable[[Path], Pixels] = read_image) -> Pixels:
        """The ground truth alone, as :meth:`read` gives it."""
        return reader(self.clean) if self.rainy_side is None else self.read(reader)[1]


def halves(picture: Pixels, path: Path) -> tuple[Pixels, Pixels]:
    """Left and right half of a side-by-side picture, each contiguous.

    Raises:
        DataError: the width is odd.
    """
    width = picture.shape[1]
    if width % 2:
        raise DataError(f"'{path}' is {_size(picture)}", expected="an even width: two pictures side by side")
    middle = width // 2
    return np.ascontiguousarray(picture[:, :middle]), np.ascontiguousarray(picture[:, middle:])


def _size(picture: Pixels) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
