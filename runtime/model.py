"""A deraining model as an application uses it: a BGR frame in, a BGR frame out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from derain.card import ModelCard
from derain.errors import FrameError
from derain.models import resolve
from derain.runtime.backends import Backend, choose
from derain.runtime.engine.record import is_engine, read_model_card
from derain.runtime.ports import Picture, PortBuffers, RainMap, require_whole

_FRAME = "a uint8 array of shape (height, width, 3) in BGR order"


def load(name_or_path: str | Path, backend: str = "auto", threads: int | None = None) -> Model:
    """Open a model.

    Args:
        name_or_path: a shipped name (see ``derain models``), a file written by ``derain export``, or an engine.
        backend: ``"auto"`` or a backend's name; ``Model.backend_reason`` tells why it was chosen. On a CPU with both
            OpenVINO and ONNX Runtime, ``"auto"`` measures which is faster for this model, which takes a second or two
            the first time and is remembered in the user's cache folder.
        threads: CPU threads of one inference; None for the physical cores this process may use.

    Raises:
        ModelFileError: no such model, a damaged file, or no deraining graph in it.
        BackendError: no backend can be used here, or the chosen one refuses the model.
        MissingDependencyError: the package behind the backend asked for is not installed.
        UsageError: no backend has that name, or ``threads`` is below 1.
    """
    path = resolve(name_or_path)
    card = read_model_card(path)
    require_whole(card, path)
    chosen, reason = choose(backend, card, is_engine(path), path, threads)
    return Model(chosen(path, card, threads), reason)


class Derainer(Protocol):
    """What :class:`Model` and :class:`derain.runtime.tiling.TiledModel` have in common."""

    card: ModelCard
    device: str
    backend_name: str
    backend_reason: str

    @overload
    def __call__(self, frame: Picture, *, attention: Literal[False] = False) -> Picture: ...

    @overload
    def __call__(self, frame: Picture, *, attention: Literal[True]) -> tuple[Picture, RainMap]: ...

    def close(self) -> None:
        """Give the memory back."""


class Turns:
    """Calls one at a time or side by side, and what must be alone: it waits for those under way, and others for it."""

    def __init__(self, side_by_side: bool) -> None:
        self._side_by_side = side_by_side
        self._free = threading.Condition()
        self._calls = 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call."""
        if not self._side_by_side:
            with self.alone():
                yield
            return
        with self._free:
            self._calls += 1
        try:
            yield
        finally:
            with self._free:
                self._calls -= 1
                self._free.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing else meanwhile."""
        with self._free:
            self._free.wait_for(lambda: self._calls == 0)
            yield


class Model:
    """An open model: call it with a frame; close it, or use it in a ``with`` block.

    One model may be called from several threads. On a CPU the calls then run one after the other, each on all of the
    model's threads, which is the fastest order; TensorRT has an execution context for each thread.
    """

    def __init__(self, backend: Backend, reason: str) -> None:
        self._backend = backend
        self.card: ModelCard = backend.card
        self.backend_name = backend.name
        self.backend_reason = reason
        backend.open()
        self.device = f"{backend.device}, {backend.threads} threads"
        # One call at a time, and one set of buffers; or, where calls go side by side, one for each thread.
        side_by_side = backend.context_per_thread
        self._turns = Turns(side_by_side)
        self._own: Any = threading.local() if side_by_side else SimpleNamespace()

    @property
    def backend(self) -> Backend:
        """What runs the graph."""
        return self._backend

    @overload
    def __call__(self, frame: Picture, *, attention: Literal[False] = False, out: Picture | None = None) -> Picture: ...

    @overload
    def __call__(
        self, frame: Picture, *, attention: Literal[True], out: Picture | None = None
    ) -> tuple[Picture, RainMap]: ...

    def __call__(
        self, frame: Picture, *, attention: bool = False, out: Picture | None = None
    ) -> Picture | tuple[Picture, RainMap]:
        """Derain one frame.

        Args:
            frame: uint8 (H, W, 3) BGR, any strides, may be read-only; never changed.
            attention: also return the rain map.
            out: where to put the result: uint8 (H, W, 3), C-contiguous, sharing no memory with ``frame``. A new array
                is made otherwise.

        Returns:
            The derained frame, uint8 (H, W, 3) BGR; with ``attention`` also float32 (H, W) in [0, 1], where 1 is rain.

        Raises:
            FrameError: a frame of another type or shape, or of a size the model does not take; an unusable ``out``.
            BackendError: the model is closed, or the inference failed.
        """
        require_frame(frame, self.card)
        require_fixed_size(frame, self.card)
        height, width = frame.shape[:2]
        clean = np.empty((height, width, 3), np.uint8) if out is None else _usable_out(out, frame)
        rain = np.empty((height, width), np.float32) if attention else None
        with self._turns.call():
            buffers: PortBuffers | None = getattr(self._own, "buffers", None)
            if buffers is None or buffers.size != (height, width):
                buffers = self._own.buffers = PortBuffers(self.card, self._backend.path, height, width)
            inputs, outputs = buffers.bind(frame, clean, rain)
            self._backend.infer(inputs, outputs)
            buffers.finish(outputs, clean, rain)
        return clean if rain is None else (clean, rain)

    def close(self) -> None:
        """Give the backend's memory back, when calls of other threads are over; closing twice does nothing."""
        with self._turns.alone():
            self._backend.close()
            self._own = type(self._own)()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_frame(frame: Any, card: ModelCard) -> None:
    """Refuse what no model takes, and what is too small for this one.

    Raises:
        FrameError: not a uint8 (H, W, 3) array, or smaller than the card's minimum.
    """
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"The frame is a {type(frame).__name__}", expected=_FRAME)
    if frame.dtype != np.uint8:
        fix = "Scale it to 0..255, round, and convert it: frame.astype(numpy.uint8)"
        raise FrameError(f"The frame has dtype {frame.dtype}", expected=_FRAME, fix=fix)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise FrameError(f"The frame has shape {frame.shape}", expected=_FRAME, fix=_shape_fix(frame))
    height, width = frame.shape[:2]
    least = card.geometry.minimum
    if min(height, width) < least:
        raise FrameError(
            f"The frame has {width} x {height} pixels", expected=f"at least {least} x {least} for this model"
        )


def require_fixed_size(frame: Picture, card: ModelCard) -> None:
    """Refuse a frame whose size is not the one that the graph was exported for.

    Raises:
        FrameError: naming the side.
    """
    height, width = frame.shape[:2]
    smallest, largest = card.profile.min, card.profile.max
    # A profile with equal ends is a fixed shape inside the graph; a range only tells what an engine is built for.
    for axis, found in (("height", height), ("width", width)):
        position = 1 if axis == "height" else 2
        if smallest[position] == largest[position] != found:
            raise FrameError(
                f"The frame has {width} x {height} pixels",
                expected=f"{axis} {largest[position]}, for which this model was exported",
                fix="Resize the frame, or export a dynamic model with: derain export",
            )


def _shape_fix(frame: NDArray[Any]) -> str | None:
    if frame.ndim == 2:
        return "Convert grey with: cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)"
    if frame.ndim == 3 and frame.shape[2] == 4:
        return "Drop the alpha channel with: frame[..., :3]"
    if frame.ndim == 4:
        return "Give one frame at a time"
    return None


def _usable_out(out: Any, frame: Picture) -> Picture:
    good = isinstance(out, np.ndarray) and out.dtype == np.uint8 and out.shape == frame.shape
    if not good or not out.flags.c_contiguous or not out.flags.writeable:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise FrameError(f"out is {found}", expected=f"a writable, C-contiguous uint8 array of shape {frame.shape}")
    if np.may_share_memory(out, frame):
        raise FrameError("out shares memory with the frame", expected="memory of its own: the frame is never changed")
    result: Picture = out
    return result
