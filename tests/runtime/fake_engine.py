"""An engine for the fake GPU: computes with NumPy what a graph on the card would, in stream order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from fake_cuda import DeviceFaultError, FakeCuda
from numpy.typing import NDArray

from derain.errors import BackendError
from derain.runtime.backends.engine_api import TensorInfo

Function = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]


def negative(frame: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What the fake network computes unless told otherwise."""
    clean = (255 - frame).astype(np.uint8)
    return {"derained": clean, "attention": (clean.mean(-1) / 255).astype(np.float32)}


class FakeEngine:
    """uint8 NHWC in, ``derained`` and ``attention`` out."""

    def __init__(
        self,
        cuda: FakeCuda,
        function: Function = negative,
        smallest: tuple[int, int, int] = (1, 4, 4),
        largest: tuple[int, int, int] = (2, 64, 64),
        capturable: bool = True,
    ) -> None:
        self.cuda = cuda
        self.capturable = capturable
        self.function = function
        self.contexts = 0
        self.closed = False
        low, high = ((*size, 3) for size in (smallest, largest))
        self.tensors = [
            TensorInfo("frame", True, "uint8", (-1, -1, -1, 3), high, low),
            TensorInfo("derained", False, "uint8", (-1, -1, -1, 3), None, None),
            TensorInfo("attention", False, "float32", (-1, -1, -1), None, None),
        ]

    def new_context(self) -> FakeContext:
        if self.closed:
            raise DeviceFaultError("a context of a closed engine")
        context = FakeContext(self)
        self.contexts += 1
        return context

    def close(self) -> None:
        if self.contexts:
            raise DeviceFaultError("the engine is closed before its contexts")
        self.closed = True


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._cuda = engine.cuda
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._warm = False
        self._generation = 0
        self.enqueued = 0
        self._scratch = self._cuda.allocate(64)

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        info = self._engine.tensors[0]
        assert info.smallest is not None
        assert info.largest is not None
        inside = all(low <= side <= high for low, side, high in zip(info.smallest, shape, info.largest, strict=True))
        if name != "frame" or not inside:
            raise BackendError(f"'{name}' of shape {shape} is not in the profile")
        self._require_idle()
        self._shape = shape
        self._warm = False
        self._generation += 1

    def output_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None
        return self._shape if name == "derained" else self._shape[:3]

    def set_address(self, name: str, address: int) -> None:
        self._addresses[name] = address

    def capturable(self, stream: int) -> bool:
        if stream in self._cuda._capturing:
            raise DeviceFaultError("asked while the stream is captured")
        return self._engine.capturable

    def enqueue(self, stream: int) -> None:
        cuda, shape = self._cuda, self._shape
        if shape is None:
            raise DeviceFaultError("enqueue before any shape was set")
        if stream in cuda._capturing and not self._warm:
            raise DeviceFaultError("the first execution after a change of shape is captured")
        self.enqueued += 1
        self._warm = True
        spans = {info.name: self._span(info, shape) for info in self._engine.tensors}
        views = {name: cuda._bytes(*span) for name, span in spans.items()}
        dtypes = {info.name: info.dtype for info in self._engine.tensors}

        def run() -> None:
            results = self._engine.function(views["frame"].view("uint8").reshape(shape))
            for name, values in results.items():
                np.copyto(views[name].view(dtypes[name]).reshape(values.shape), values)

        generation = self._generation
        run.stale = lambda: self._generation != generation  # type: ignore[attr-defined]
        # The scratch memory is written by every execution: two that are not ordered would destroy each other.
        writes = [spans["derained"], spans["attention"], (self._scratch, 64)]
        cuda.queue(stream, "compute", run, [spans["frame"]], writes)

    def close(self) -> None:
        self._cuda.free(self._scratch)
        self._engine.contexts -= 1

    def _span(self, info: TensorInfo, shape: tuple[int, ...]) -> tuple[int, int]:
        if info.name not in self._addresses:
            raise DeviceFaultError(f"no address for '{info.name}'")
        full = shape if info.is_input else self.output_shape(info.name)
        return self._addresses[info.name], int(np.prod(full)) * np.dtype(info.dtype).itemsize

    def _require_idle(self) -> None:
        # Each execution of this context writes its scratch memory, those of another one do not.
        if any(not work.done and (self._scratch, 64) in work.writes for work in list(self._cuda._history)):
            raise DeviceFaultError("the shape is changed under work that is under way")
