"""Decoded pictures kept in memory, up to a limit."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np

from derain.images import read_image
from derain.train.data.pairs import Pixels


class PictureCache:
    """Decoded pictures, RGB, read-only; the least recently used go when the limit in bytes is reached."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held: OrderedDict[Path, Pixels] = OrderedDict()
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """What is kept now; never more than the limit."""
        return self._bytes

    def __call__(self, path: Path) -> Pixels:
        if path in self._held:
            self._held.move_to_end(path)
            return self._held[path]
        picture = np.ascontiguousarray(read_image(path)[:, :, ::-1])
        picture.flags.writeable = False
        if picture.nbytes <= self._limit:
            self._bytes += picture.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
            self._held[path] = picture
        return picture
