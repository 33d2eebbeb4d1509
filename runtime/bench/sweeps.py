"""Timing beyond one frame after the other: several streams through the live pipeline, and a file from end to end."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from derain.errors import BackendError
from derain.runtime.bench.sequence import time_is_up
from derain.runtime.job import Job, run_job
from derain.runtime.live.run import LiveRun
from derain.runtime.live.stream import StreamSpec
from derain.runtime.media.items import Frame, Item, Picture
from derain.runtime.model import Derainer
from derain.runtime.pipeline import Derained
from derain.runtime.statistics import StageTime

# Of each stream, delivered before the clock starts: every queue is then as full as it will be.
_SKIPPED = 2
_PATIENCE_SECONDS = 0.2


class BatchTime(NamedTuple):
    """Seconds of one call; None where it was ``refused``."""

    seconds: float | None
    refused: str


class StreamsTime(NamedTuple):
    """Frames of each stream within ``seconds``; ages in seconds, the worst stream's."""

    frames: list[int]
    seconds: float
    age_p50: float
    age_p99: float

    @property
    def fairness(self) -> float:
        """Frames of the stream with fewest to that with most."""
        return min(self.frames) / max(self.frames) if max(self.frames) else 0.0


class VideoTime(NamedTuple):
    """A whole file."""

    frames: int
    seconds: float
    stages: dict[str, StageTime]
    peak_bytes: int | None = None


def run_streams(
    model: Derainer, frames: Sequence[Picture], streams: int, wanted: int, seconds: float | None = None
) -> StreamsTime:
    """Run ``streams`` sources that always have a frame through one model, as ``derain run`` does.

    Args:
        wanted: frames delivered in all, after which everything stops.
        seconds: it stops after so long too, once a frame was delivered; None for no limit.

    Raises:
        BackendError: a stream failed.
    """
    tally = _Tally(streams, wanted)

    def infer(frame: Frame) -> Derained:
        clean, rain = model(frame.pixels, attention=True)
        return Derained(frame, clean, rain)

    specs = [
        StreamSpec(
            name=f"stream-{number}",
            open=lambda: _Endless(frames),
            infer=infer,
            deliver=lambda derained, seconds, number=number: tally.add(number),  # type: ignore[misc]
            policy="block",
            reconnect=None,
        )
        for number in range(streams)
    ]
    run = LiveRun(specs)
    run.start()
    enough = time_is_up(seconds)
    try:
        while not tally.full.wait(_PATIENCE_SECONDS):
            if any(report.state == "failed" for report in run.reports()) or (enough() and any(tally.counts)):
                break
        reports = run.reports()
    finally:
        run.stop()
        run.wait()
    failed = [report.reason for report in reports if report.state == "failed"]
    if failed:
        raise BackendError(f"A stream of the benchmark failed: {failed[0]}")
    return StreamsTime(
        tally.counts,
        tally.seconds,
        max(report.age_p50 for report in reports),
        max(report.age_p99 for report in reports),
    )


def run_video(model: Derainer, path: Path) -> VideoTime:
    """Decode, derain and encode a whole file, as ``derain run FILE -o OTHER.mp4`` does; the result is thrown away.

    Raises:
        MediaError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="derain-bench-") as folder:
        result = run_job(Job(path, Path(folder, "out.mp4")), model)
    return VideoTime(result.stats.frames, result.stats.seconds, result.stats.stages)


class _Tally:
    """Counts deliveries of all streams between the first that counts and the last that is wanted."""

    def __init__(self, streams: int, wanted: int) -> None:
        self.counts = [0] * streams
        self.seconds = 0.0
        self.full = threading.Event()
        self._skip = _SKIPPED * streams
        self._wanted = wanted
        self._begin = 0.0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        now = time.perf_counter()
        with self._lock:
            if self._skip:
                self._skip -= 1
                self._begin = now
            elif not self.full.is_set():
                self.counts[number] += 1
                self.seconds = now - self._begin
                if sum(self.counts) >= self._wanted:
                    self.full.set()


class _Endless:
    """A source that always has a frame."""

    frame_count: int | None = None
    damaged = 0

    def __init__(self, frames: Sequence[Picture]) -> None:
        self.warnings: list[str] = []
        self._frames = frames

    def __enter__(self) -> _Endless:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __iter__(self) -> Iterator[Item]:
        index = 0
        while True:
            yield Frame(self._frames[index % len(self._frames)], index)
            index += 1
