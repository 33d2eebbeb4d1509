"""A small stand-in for a large frame, of which a network's whole-frame context is the same.

The context looks at a frame's cells at a fixed number of places along each side, so that of a large frame it reads few:
at 7680x4320 two of eight rows and two of fifteen columns. What it does not read is left out. The places lie ``cells /
places`` apart; taking an even number of cells out between any two neighbours moves each place by whole cells, so that
it lies between the same two as before, by the same shares. Without this the companion would take the whole frame as
floats at once, 5 GB in OpenVINO at that size, and tiles would bound nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from derain.card import ContextReading
from derain.runtime.ports import Picture


def overview(frame: Picture, reading: ContextReading, multiple_of: int) -> Picture:
    """What the context reads of a frame, uint8 (H, W, 3); the frame itself where it reads all.

    Args:
        frame: its sides need not be multiples of the grid.
        reading: from the card of the context graph.
        multiple_of: grid to which that graph pads frames by repeating the last row and column, in pixels.

    Returns:
        At most ``4 * places * cell`` pixels a side, from the size at which anything can be left out.
    """
    rows, columns = (pixels_read(length, reading, multiple_of) for length in frame.shape[:2])
    if rows is not None:
        frame = frame[rows]
    return frame if columns is None else frame[:, columns]


def pixels_read(length: int, reading: ContextReading, multiple_of: int) -> NDArray[np.int64] | None:
    """Positions of the pixels to keep along one side, in order; None for all of them."""
    grid = int(np.lcm(multiple_of, reading.cell))
    cells = -(-length // grid) * grid // reading.cell
    # An even number of cells between neighbouring places, so that at least two stay for each; see the module's text.
    left_out = 2 * (cells // (2 * reading.places) - 1)
    removed = left_out * reading.places
    if left_out < 2 or removed * reading.cell % grid:
        return None
    kept = np.arange(cells - removed)
    first = np.floor((np.arange(reading.places) + 0.5) * (kept.size / reading.places) - 0.5)
    place = np.searchsorted(first, kept, side="right") - 1
    original = kept + place.clip(0) * left_out + left_out // 2
    pixels: NDArray[np.int64] = original[:, None] * reading.cell + np.arange(reading.cell)
    return np.minimum(pixels.reshape(-1), length - 1)  # the graph pads by repeating the last one
