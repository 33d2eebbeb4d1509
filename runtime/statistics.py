"""What a run cost: frames, rate, and the time of each stage."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StageTime:
    """Milliseconds per frame of one stage, waiting for its neighbours not counted."""

    median: float
    p99: float
    total: float


class Stopwatch:
    """Collects the durations of one stage; used by one thread."""

    def __init__(self) -> None:
        self._seconds = array("d")  # 8 bytes a frame: an hour at 60 frames a second is 1.7 MB

    def add(self, seconds: float) -> None:
        """One more frame took that long."""
        self._seconds.append(seconds)

    def result(self) -> StageTime:
        """Summary so far; zeros when nothing was measured."""
        if not self._seconds:
            return StageTime(0.0, 0.0, 0.0)
        milliseconds = np.asarray(self._seconds) * 1e3
        return StageTime(
            float(np.median(milliseconds)), float(np.percentile(milliseconds, 99)), float(milliseconds.sum())
        )


@dataclass(frozen=True)
class RunStats:
    """Result of a run.

    Attributes:
        frames: written to the sinks.
        seconds: from the start of the first stage to the end of the last one.
        stages: by name (``decode``, ``infer``, ``encode``).
        stopped: the run was asked to stop before the source ended.
        at_once: frames in the stage ``infer`` at the same time; its times include waiting for one another.
    """

    frames: int
    seconds: float
    stages: dict[str, StageTime]
    stopped: bool
    at_once: int = 1

    @property
    def fps(self) -> float:
        """Frames a second from end to end."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0
