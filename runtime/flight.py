"""Several frames of one model under way at once: while a device computes one, it copies its neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from derain.errors import BackendError
from derain.runtime.backends.base import Buffers
from derain.runtime.backends.device_runner import DEFAULT_SLOTS
from derain.runtime.lanes import Lanes, lanes_for
from derain.runtime.media.items import Frame, Picture
from derain.runtime.model import Derainer, Model, require_fixed_size, require_frame
from derain.runtime.pipeline import Derained, Overlapped
from derain.runtime.ports import PortBuffers, RainMap


@runtime_checkable
class Overlapping(Protocol):
    """A backend whose inferences are begun and collected apart, at most ``DEFAULT_SLOTS`` of them under way."""

    def submit(self, inputs: Buffers) -> Any:
        """Begin one inference; ``inputs`` may change as soon as it returns. Gives a ticket."""

    def collect(self, ticket: Any, outputs: Buffers) -> None:
        """Wait for an inference, and fill its outputs."""


@dataclass(frozen=True)
class Begun:
    """A frame under way, and where its result will be."""

    frame: Frame
    ticket: Any
    buffers: PortBuffers
    outputs: Buffers
    clean: Picture
    rain: RainMap | None


class Flight:
    """Begins and finishes frames on a backend that overlaps. One thread begins and one finishes, in the same order.

    Args:
        model: whose backend it is.
        backend: the same, known to overlap.
        attention: give the rain map with each result.
    """

    slots = DEFAULT_SLOTS

    def __init__(self, model: Model, backend: Overlapping, attention: bool = False) -> None:
        self._card, self._path = model.card, model.backend.path
        self._backend = backend
        self._attention = attention
        self._buffers: PortBuffers | None = None
        self._guard = threading.Lock()
        self._under_way: dict[int, Begun] = {}

    def begin(self, frame: Frame) -> Begun:
        """Send a frame on its way.

        Raises:
            FrameError: as for calling the model.
            BackendError: no slot is free, or the device failed.
        """
        pixels = frame.pixels
        require_frame(pixels, self._card)
        require_fixed_size(pixels, self._card)
        size = pixels.shape[:2]
        if self._buffers is None or self._buffers.size != size:
            self._buffers = PortBuffers(self._card, self._path, *size)
        clean = np.empty((*size, 3), np.uint8)
        rain = np.empty(size, np.float32) if self._attention else None
        inputs, outputs = self._buffers.bind(pixels, clean, rain)
        begun = Begun(frame, self._backend.submit(inputs), self._buffers, outputs, clean, rain)
        with self._guard:
            self._under_way[id(begun)] = begun
        return begun

    def finish(self, begun: Begun) -> Derained:
        """Wait for its result.

        Raises:
            BackendError: the device failed.
        """
        with self._guard:
            del self._under_way[id(begun)]
        self._backend.collect(begun.ticket, begun.outputs)
        begun.buffers.finish(begun.outputs, begun.clean, begun.rain)
        return Derained(begun.frame, begun.clean, begun.rain)

    def abandon(self) -> None:
        """Give back the slots of frames that nobody will finish."""
        for begun in list(self._under_way.values()):
            with suppress(BackendError):
                self.finish(begun)


@contextmanager
def flight_of(model: Derainer, attention: bool = False, frames: int | None = None) -> Iterator[Overlapped | None]:
    """A model's frames in flight while the block runs; None where one at a time is best.

    Args:
        attention: give the rain map with each result.
        frames: how many will come, None when unknown.
    """
    if not isinstance(model, Model):
        yield None
    elif isinstance(model.backend, Overlapping):
        yield Flight(model, model.backend, attention)
    elif (lanes := lanes_for(model.backend, frames)) > 1:
        with Lanes(model, lanes, attention) as flying:
            yield flying
    else:
        yield None
