"""Deraining frames that are on the GPU already: no copy to the CPU, in the order of the application's stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from derain.card import Port
from derain.errors import FrameError, UsageError
from derain.models import resolve
from derain.runtime.backends.base import find, shape_of
from derain.runtime.backends.cuda_api import CudaApi
from derain.runtime.backends.cuda_python import CudaPython
from derain.runtime.backends.device_array import DeviceArray, take
from derain.runtime.backends.tensorrt_gpu import EngineBackend
from derain.runtime.engine.record import read_model_card
from derain.runtime.ports import require_whole


def load_on_device(name_or_path: str | Path, backend: str = "tensorrt", cuda: CudaApi | None = None) -> DeviceModel:
    """Open a model for frames in GPU memory.

    Args:
        name_or_path: a shipped name, an ``.onnx`` file or an engine, for uint8 frames.
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        cuda: a CUDA layer of the application's own, such as
            ``derain.runtime.backends.pycuda_adapter.use_context()``; None for the primary context.

    Raises:
        UsageError: another backend.
        ModelFileError: no such model, or one for other frames.
        BackendError: there is no GPU, or the engine cannot be built.
    """
    path = resolve(name_or_path)
    card = read_model_card(path)
    require_whole(card, path)
    chosen = find(backend)
    if not issubclass(chosen, EngineBackend):
        raise UsageError(f"The backend '{backend}' does not work on GPU memory", expected="tensorrt or tensorrt-rtx")
    opened = chosen(path, card)
    opened.cuda = cuda or CudaPython()
    opened.open()
    return DeviceModel(opened, opened.cuda)


class DeviceModel:
    """An open model: call it with a frame on the GPU; close it, or use it in a ``with`` block."""

    def __init__(self, backend: EngineBackend, cuda: CudaApi) -> None:
        self._backend = backend
        self._cuda = cuda
        self.card = backend.card
        self._input = self.card.inputs[0]
        self._clean = next(port for port in self.card.outputs if port.channels != "attention")
        self._rain = next(port for port in self.card.outputs if port.channels == "attention")
        self._memory: dict[str, tuple[int, int]] = {}  # address and capacity of results we own

    def __call__(
        self, frame: Any, *, stream: Any = 0, out: Any = None, rain: Any = None
    ) -> tuple[DeviceArray, DeviceArray]:
        """Derain one frame, without waiting: the results are there for work that ``stream`` gets after this call.

        Args:
            frame: uint8 (H, W, 3) of the model's channel order, or (1, H, W, 3), on the GPU: anything with the CUDA
                array interface or DLPack; only read. It must stay as it is until the stream has passed this call.
            stream: the application's stream: a number, or an object of CuPy (``.ptr``), PyTorch (``.cuda_stream``),
                PyCUDA (``.handle``) or with ``__cuda_stream__``.
            out: where to put the picture, as ``frame``; None for memory of the model, valid until the next call.
            rain: where to put the map, float32 (H, W); None likewise.

        Returns:
            The picture and the rain map on the GPU.

        Raises:
            FrameError: another type, shape or memory.
            BackendError: a size the engine does not take, out of memory, a lost GPU.
        """
        handle = stream_handle(stream)
        source = self._viewed(frame, self._input, handle, None)
        rows = 2 if self._input.layout == "NCHW" else 1
        size = (source.shape[rows], source.shape[rows + 1])
        clean = self._result(self._clean, out, size, handle)
        attention = self._result(self._rain, rain, size, handle)
        self._backend.runner.run_arrays(
            {self._input.name: source}, {self._clean.name: clean, self._rain.name: attention}, handle
        )
        return self._handed_out(clean, handle), self._handed_out(attention, handle)

    def close(self) -> None:
        """Give everything back; closing twice does nothing. Work that uses the results must be over."""
        self._backend.close()
        with self._cuda.current():
            while self._memory:
                self._cuda.free(self._memory.popitem()[1][0])

    def __enter__(self) -> DeviceModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _viewed(self, array: Any, port: Port, stream: int, size: tuple[int, int] | None) -> DeviceArray:
        """An array of someone else as the port needs it, with the batch axis."""
        given = take(array, stream)
        viewed = given.batched() if len(given.shape) == len(port.layout) - 1 else given
        rows = 2 if port.layout == "NCHW" else 1
        if len(viewed.shape) == len(port.layout) and viewed.dtype == np.dtype(port.dtype):
            height, width = size or (viewed.shape[rows], viewed.shape[rows + 1])
            if viewed.shape == shape_of(port, 1, height, width):
                return viewed
        sides = {"NHW": "(H, W)", "NHWC": "(H, W, 3)", "NCHW": "(3, H, W)"}[port.layout]
        of_size = f" of {size[0]} x {size[1]} rows and columns" if size else ""
        raise FrameError(
            f"The device array for '{port.name}' is {given.dtype} {given.shape}",
            expected=f"{port.dtype} {sides}{of_size}",
        )

    def _result(self, port: Port, given: Any, size: tuple[int, int], stream: int) -> DeviceArray:
        if given is not None:
            return self._viewed(given, port, stream, size)
        shape = shape_of(port, 1, *size)
        needed = int(np.prod(shape)) * np.dtype(port.dtype).itemsize
        address, capacity = self._memory.get(port.name, (0, 0))
        if capacity < needed:
            with self._cuda.current():
                if capacity:
                    self._cuda.synchronize(stream)  # earlier results may still be in use there
                    self._cuda.free(self._memory.pop(port.name)[0])
                address = self._cuda.allocate(needed)
            self._memory[port.name] = (address, needed)
        return DeviceArray(address, shape, np.dtype(port.dtype), self)

    def _handed_out(self, array: DeviceArray, stream: int) -> DeviceArray:
        """A result without the batch axis, which knows in whose order it is written."""
        return replace(array, shape=array.shape[1:], stream=stream, cuda=self._cuda)


def stream_handle(stream: Any) -> int:
    """The number of a stream of any library.

    Raises:
        UsageError: nothing that is known to be a stream.
    """
    if stream is None:
        return 0
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    try:
        return int(stream)
    except (TypeError, ValueError):
        raise UsageError(
            f"A {type(stream).__name__} is no CUDA stream",
            expected="a number, or a stream of CuPy, PyTorch, PyCUDA or cuda-python",
        ) from None
