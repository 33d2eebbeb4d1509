"""How a stored video must be turned and mirrored to be upright: the display matrix of FFmpeg, MP4 and Matroska.

A telephone held upright stores its frames lying on their side. Rain falls down, so the network must see the frames
upright.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from derain.runtime.media.items import Picture

_ONE = 1 << 16  # the matrix is in 16.16 fixed point


@dataclass(frozen=True)
class Orientation:
    """A display matrix; the eight turns by quarters with or without a mirror are applied to pixels, others only kept.

    Attributes:
        matrix: the nine integers of ``AV_PKT_DATA_DISPLAYMATRIX``, or None for a video stored upright.
    """

    matrix: tuple[int, ...] | None = None

    @classmethod
    def from_side_data(cls, data: bytes) -> Orientation:
        """From the bytes of the side data: nine native 32-bit integers."""
        return cls(struct.unpack("=9i", data[:36])) if len(data) >= 36 else cls()

    @property
    def _steps(self) -> tuple[int, int, int, int]:
        """(a, b, c, d) as -1, 0, 1: a stored point (p, q) is shown at (a p + c q, b p + d q), x right and y down."""
        if self.matrix is None:
            return (1, 0, 0, 1)
        a, b, c, d = (round(self.matrix[i] / _ONE) for i in (0, 1, 3, 4))
        quarter_turn = {abs(a), abs(b)} == {0, 1} and (abs(a), abs(b)) == (abs(d), abs(c))
        return (a, b, c, d) if quarter_turn else (1, 0, 0, 1)

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self._steps[0] == 0

    def upright(self, stored: Picture) -> Picture:
        """Stored pixels as a viewer sees them; C-contiguous."""
        a, b, c, d = self._steps
        shown = stored.transpose(1, 0, 2)[::b, ::c] if self.swaps_sides else stored[::d, ::a]
        return np.ascontiguousarray(shown)

    def stored(self, shown: Picture) -> Picture:
        """The inverse of :meth:`upright`."""
        a, b, c, d = self._steps
        kept = shown[::b, ::c].transpose(1, 0, 2) if self.swaps_sides else shown[::d, ::a]
        return np.ascontiguousarray(kept)
