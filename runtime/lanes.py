"""Several frames at once on a CPU: each inference on few threads, instead of one after the other on all of them.

Threads that share one frame wait for each other at every layer, and spin while they do; a core that the decoder or the
encoder needs meanwhile holds all of them up. Frames of a file are in no hurry: with a frame for each core nobody waits,
and more of them are done in a second. A live frame is in a hurry, so live streams do not use this.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from derain.runtime.backends.base import Backend
from derain.runtime.media.items import Frame
from derain.runtime.model import Model, require_fixed_size, require_frame
from derain.runtime.pipeline import Derained
from derain.runtime.ports import PortBuffers

# Opening the model once more takes about as long as this many frames gain.
_FEWEST_FRAMES = 16
# Each lane holds the arrays of a whole inference: beyond this size, memory counts more than speed.
_MOST_PIXELS = 1920 * 1200


def lanes_for(backend: Backend, frames: int | None) -> int:
    """How many lanes serve a file of that many frames best; 1 for one frame at a time.

    Args:
        backend: an open one.
        frames: how many will come, None when unknown.
    """
    few = frames is not None and frames < _FEWEST_FRAMES
    return 1 if few else min(backend.most_lanes, backend.threads)


class Lanes:
    """Inference for :func:`derain.runtime.pipeline.run` on a second, wider opening of a model's backend.

    Frames too large for several lanes are run one at a time by the model that was given. Used in a ``with`` block.

    Args:
        model: an open one; its file, its backend and its threads are used.
        lanes: how many inferences at once, 2 or more.
        attention: give the rain map with each result.
    """

    def __init__(self, model: Model, lanes: int, attention: bool = False) -> None:
        self.slots = lanes + 1  # one frame waits, so that a lane that is done finds it at once
        self._model, self._lanes, self._attention = model, lanes, attention
        self._wide: Backend | None = None
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(lanes, "derain-lane")

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._wide is not None:
            self._wide.close()

    def begin(self, frame: Frame) -> Future[Derained]:
        """Send a frame on its way; the first one that fits opens the lanes.

        Raises:
            FrameError: as for calling the model.
            BackendError, ModelFileError: the lanes cannot be opened.
        """
        require_frame(frame.pixels, self._model.card)
        require_fixed_size(frame.pixels, self._model.card)
        height, width = frame.pixels.shape[:2]
        if height * width > _MOST_PIXELS:
            return self._pool.submit(self._alone, frame)
        if self._wide is None:
            narrow = self._model.backend
            wide = type(narrow)(narrow.path, narrow.card, narrow.threads, self._lanes)
            wide.open()
            self._wide = wide
        return self._pool.submit(self._beside_others, self._wide, frame)

    def finish(self, begun: Future[Derained]) -> Derained:
        """Wait for its result.

        Raises:
            BackendError: the inference failed.
        """
        return begun.result()

    def abandon(self) -> None:
        """Frames under way end by themselves; nobody waits for them."""

    def _alone(self, frame: Frame) -> Derained:
        if not self._attention:
            return Derained(frame, self._model(frame.pixels))
        return Derained(frame, *self._model(frame.pixels, attention=True))

    def _beside_others(self, backend: Backend, frame: Frame) -> Derained:
        size = frame.pixels.shape[:2]
        buffers: PortBuffers | None = getattr(self._own, "buffers", None)
        if buffers is None or buffers.size != size:
            buffers = self._own.buffers = PortBuffers(backend.card, backend.path, *size)
        clean = np.empty((*size, 3), np.uint8)
        rain = np.empty(size, np.float32) if self._attention else None
        inputs, outputs = buffers.bind(frame.pixels, clean, rain)
        backend.infer(inputs, outputs)
        buffers.finish(outputs, clean, rain)
        return Derained(frame, clean, rain)
