"""Ages of frames, from their arrival to their delivery, in bounded memory however long a stream runs."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

# Bins grow by 2 % from 10 microseconds on: a percentile is right within 1 %, and an hour of frames takes 8 kB.
_GROWTH = 1.02
_SMALLEST = 1e-5
_BINS = 1000
_RECENT = 64


class Ages:
    """A histogram of durations in seconds."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        """One more frame had that age."""
        place = math.log(max(seconds, _SMALLEST) / _SMALLEST) / math.log(_GROWTH)
        self._counts[min(int(place), _BINS - 1)] += 1
        self.largest = max(self.largest, seconds)

    def percentile(self, share: float) -> float:
        """The age that ``share`` (0 to 1) of the frames stayed below, seconds; 0 before the first frame."""
        total = int(self._counts.sum())
        if not total:
            return 0.0
        place = int(np.searchsorted(self._counts.cumsum(), share * total, side="left"))
        middle: float = _SMALLEST * _GROWTH ** (place + 0.5)
        return min(middle, self.largest)


class Rate:
    """Frames a second over the last moments."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_RECENT)

    def add(self, now: float) -> None:
        """A frame passed at that time, seconds."""
        self._times.append(now)

    def value(self, now: float) -> float:
        """Frames a second; falls towards 0 while nothing comes."""
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(now - self._times[0], 1e-9)
