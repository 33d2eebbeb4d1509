"""One candidate of a benchmark in the process that runs it: the model opened, and every way of timing it.

The steps of a frame are told apart from outside: the graph's own time is taken where the model calls its backend, and
what lies before and after it is the frame's conversion to and from the graph's ports.
"""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from derain.card import ModelCard, Port
from derain.errors import BackendError
from derain.runtime.backends import Backend
from derain.runtime.backends.base import Buffers, dtype_of
from derain.runtime.backends.tensorrt_gpu import EngineBackend
from derain.runtime.backends.threads import default_threads
from derain.runtime.bench.sweeps import BatchTime, StreamsTime, VideoTime, run_streams, run_video
from derain.runtime.engine.options import input_shape
from derain.runtime.engine.selftest import fixed_inputs
from derain.runtime.media.items import Frame, Picture
from derain.runtime.media.video_reader import VideoReader
from derain.runtime.model import Derainer, load
from derain.runtime.tiling import load_tiled

_FRAMES = 2
_PATTERN = (256, 384)
_CAMERA = Port(name="frame", layout="NHWC", dtype="uint8", channels="BGR", value_range=(0, 255))


@dataclass(frozen=True)
class Spec:
    """What to open and what to feed it.

    Attributes:
        name: of the model, as it was asked for.
        backend: a backend's name, and ``reason`` why it was chosen.
        width, height: of the frames.
        video: a file from which the frames are taken; None for a made picture.
    """

    name: str
    path: Path
    card: ModelCard
    backend: str
    reason: str
    threads: int | None
    width: int
    height: int
    tile: int | None = None
    video: Path | None = None


class Opened(NamedTuple):
    """How opening went. Seconds and bytes; ``build_seconds`` None where no engine was built or nobody wrote it down."""

    device: str
    threads: int
    load_seconds: float
    first_seconds: float
    build_seconds: float | None
    before_bytes: int | None


class Timing(NamedTuple):
    """Seconds of one frame; the parts are None where they cannot be told apart."""

    total: float
    pre: float | None
    inference: float | None
    post: float | None


class Steps(NamedTuple):
    """Seconds of one frame on a device, each step waited for."""

    copy_in: float
    inference: float
    copy_out: float


class Usage(NamedTuple):
    """Of the process so far: largest resident set in bytes, None where the system does not tell; CPU seconds."""

    peak_bytes: int | None
    cpu_seconds: float


class _Clock:
    """Remembers when a backend's last inference began and ended; or, ``step_by_step``, what its steps took."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.begin = self.end = 0.0
        self.step_by_step = False
        self.steps: Steps | None = None
        self._infer = backend.infer
        backend.infer = self._clocked  # type: ignore[method-assign]

    def _clocked(self, inputs: Buffers, outputs: Buffers) -> None:
        self.begin = time.perf_counter()
        if self.step_by_step and isinstance(self.backend, EngineBackend):
            self.steps = Steps(*self.backend.runner.infer_in_steps(inputs, outputs))
        else:
            self._infer(inputs, outputs)
        self.end = time.perf_counter()


class Subject:
    """A candidate that runs in this process. Open it, then call it from one thread."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._model: Derainer | None = None
        self._clock: _Clock | None = None
        self._batches: dict[int, tuple[Buffers, Buffers]] = {}
        self._count = 0

    def open(self) -> Opened:
        """Load the model and run the first frame.

        Raises:
            DerainError: of the model, the backend or the video.
        """
        spec = self.spec
        self._frames = _video_frames(spec.video) if spec.video else made_frames(spec.card, spec.height, spec.width)
        before = read_memory("VmRSS")
        begin = time.perf_counter()
        if spec.tile is not None:
            self._model = load_tiled(spec.path, spec.backend, spec.threads, spec.tile)
        else:
            model = load(spec.path, spec.backend, spec.threads)
            self._model, self._clock = model, _Clock(model.backend)
        loaded = time.perf_counter()
        self.run()
        first = time.perf_counter() - loaded
        threads = self._clock.backend.threads if self._clock else spec.threads or default_threads()
        return Opened(self._model.device, threads, loaded - begin, first, self._build_seconds(), before)

    def run(self) -> Timing:
        """One frame: array in, derained array and rain map out."""
        assert self._model is not None
        frame = self._frames[self._count % len(self._frames)]
        self._count += 1
        begin = time.perf_counter()
        self._model(frame, attention=True)
        end = time.perf_counter()
        if self._clock is None:
            return Timing(end - begin, None, None, None)
        graph = self._clock
        return Timing(end - begin, graph.begin - begin, graph.end - graph.begin, end - graph.end)

    def run_steps(self) -> Steps | None:
        """One frame whose copies are timed apart from its inference; None where the backend cannot tell them apart."""
        assert self._model is not None
        if self._clock is None or not isinstance(self._clock.backend, EngineBackend):
            return None
        self._clock.step_by_step = True
        try:
            self.run()
        finally:
            self._clock.step_by_step = False
        return self._clock.steps

    def run_for(self, seconds: float) -> tuple[int, float]:
        """Frames one after the other for at least that long; (frames, seconds)."""
        begin = time.perf_counter()
        frames = 0
        while not frames or time.perf_counter() - begin < seconds:
            self.run()
            frames += 1
        return frames, time.perf_counter() - begin

    def run_batch(self, size: int) -> BatchTime:
        """Inference alone of ``size`` frames in one call."""
        if self._clock is None:
            return BatchTime(None, "tiles are run one by one")
        if size not in self._batches:
            self._batches[size] = self._batch_buffers(size)
        inputs, outputs = self._batches[size]
        begin = time.perf_counter()
        try:
            self._clock.backend.infer(inputs, outputs)
        except BackendError as error:
            return BatchTime(None, str(error)[:400])
        return BatchTime(time.perf_counter() - begin, "")

    def run_streams(self, streams: int, frames: int, seconds: float | None) -> StreamsTime:
        """Several streams through the live pipeline, until ``frames`` were delivered in all or the time is over."""
        assert self._model is not None
        return run_streams(self._model, self._frames, streams, frames, seconds)

    def run_video(self, path: Path) -> VideoTime:
        """The whole file decoded, derained and encoded; with the largest resident set of the process so far.

        Raises:
            MediaError: it cannot be read.
        """
        assert self._model is not None
        times = run_video(self._model, path)
        return times._replace(peak_bytes=read_memory("VmHWM"))

    def usage(self) -> Usage:
        """Memory and CPU time of the process so far."""
        return Usage(read_memory("VmHWM"), time.process_time())

    def close(self) -> None:
        """Give everything back."""
        if self._model is not None:
            self._model.close()
            self._model = None

    def __enter__(self) -> Subject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batch_buffers(self, size: int) -> tuple[Buffers, Buffers]:
        card, shape = self.spec.card, (size, self.spec.height, self.spec.width)
        outputs = {
            port.name: np.empty(input_shape(port, shape, card.context_size), dtype_of(port)) for port in card.outputs
        }
        return fixed_inputs(card, shape), outputs

    def _build_seconds(self) -> float | None:
        backend = self._clock.backend if self._clock else None
        return backend.record.seconds if isinstance(backend, EngineBackend) else None


def made_frames(card: ModelCard, height: int, width: int) -> list[Picture]:
    """Two frames uint8 (H, W, 3) BGR: the self-test's picture, repeated; little memory is needed to make them."""
    rows, columns = _PATTERN
    camera = card.model_copy(update={"inputs": [_CAMERA]})
    pattern: Picture = fixed_inputs(camera, (1, rows, columns))[_CAMERA.name][0]
    across: Picture = np.tile(pattern, (1, -(-width // columns) + 1, 1))
    frames = []
    for number in range(_FRAMES):
        moved = across[:, 37 * number : 37 * number + width]
        frame = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, rows):
            frame[top : top + rows] = moved[: height - top]
        frames.append(frame)
    return frames


def read_memory(name: str) -> int | None:
    """A line of /proc/self/status, such as VmHWM (largest resident set), in bytes; None outside Linux."""
    try:
        match = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def _video_frames(path: Path) -> list[Picture]:
    with VideoReader(path) as reader:
        frames = (item.pixels for item in reader if isinstance(item, Frame))
        return list(itertools.islice(frames, _FRAMES))
