"""Summaries of measured durations, and whether two of them differ by more than their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Neighbouring frames share the machine's mood, so whole blocks of them are drawn, not single frames.
BLOCKS = 20
_FEWEST_BLOCKS = 8
_DRAWS = 2000


@dataclass(frozen=True)
class Summary:
    """Of durations, in the unit they came in."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class Change:
    """Second median to first, minus one, with an interval of 95 %: 0.1 is ten per cent more."""

    ratio: float
    low: float
    high: float

    @property
    def real(self) -> bool:
        """Whether the interval leaves out "no change"."""
        return self.low > 0 or self.high < 0


def summarise(durations: Sequence[float]) -> Summary:
    """Percentiles by linear interpolation, as NumPy's default.

    Raises:
        ValueError: no duration.
    """
    values = np.asarray(durations, np.float64)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return Summary(values.size, float(values.mean()), float(p50), float(p90), float(p99), float(values.max()))


def change(first: Sequence[float], second: Sequence[float], *, paired: bool, seed: int = 0) -> Change | None:
    """How the median changed, by a bootstrap over blocks of consecutive rounds; percentile interval of 95 %.

    The interval holds the noise within the runs. What differs between two runs as a whole (another program at work,
    another temperature) it cannot know.

    Args:
        paired: both were measured in the same interleaved rounds, so that the same blocks are drawn of both.
        seed: of the draws.

    Returns:
        None where there are too few rounds to tell.
    """
    ours, theirs = _blocks(first), _blocks(second)
    if min(len(ours), len(theirs)) < _FEWEST_BLOCKS or (paired and len(ours) != len(theirs)):
        return None
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, len(ours), (_DRAWS, len(ours)))
    others = chosen if paired else generator.integers(0, len(theirs), (_DRAWS, len(theirs)))
    drawn = _medians(theirs, others) / _medians(ours, chosen) - 1
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Change(float(np.median(second) / np.median(first) - 1), float(low), float(high))


def _blocks(durations: Sequence[float]) -> NDArray[np.float64]:
    """(blocks, rounds); up to a block's worth of rounds at the end is left out."""
    values = np.asarray(durations, np.float64)
    length = max(1, values.size // BLOCKS)
    count = values.size // length
    return values[: count * length].reshape(count, length)


def _medians(blocks: NDArray[np.float64], draws: NDArray[Any]) -> NDArray[np.float64]:
    medians: NDArray[np.float64] = np.median(blocks[draws].reshape(len(draws), -1), axis=1)
    return medians
