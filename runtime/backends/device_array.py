"""Memory on the GPU that belongs to someone else (CuPy, PyTorch, PyCUDA, Numba, cuda-python), taken without a copy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from derain.errors import FrameError
from derain.runtime.backends import dlpack
from derain.runtime.backends.cuda_api import CudaApi

_NO_WAIT = -1  # of DLPack: the consumer orders its work by itself
_LEGACY, _PER_THREAD = 1, 2  # numbers of the default streams in both protocols; 0 is not allowed there


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array on the GPU. Others read it through the CUDA array interface or DLPack.

    Attributes:
        address: device pointer.
        owner: what keeps the memory alive.
        stream: the stream in whose order it is written, for readers to wait on; None: it is ready.
        device: number of the GPU.
        cuda: what orders a DLPack consumer's stream behind ``stream``; None where the array is not ours to hand out.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any
    stream: int | None = None
    device: int = 0
    cuda: CudaApi | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": None if self.stream is None else self.stream or _LEGACY,
        }

    def __dlpack__(
        self, *, stream: int | None = None, dl_device: tuple[int, int] | None = None, copy: bool | None = None, **_: Any
    ) -> Any:
        """A capsule of this memory; the consumer's ``stream`` waits, on the GPU, for the stream that writes it.

        Raises:
            BufferError: a copy, or another device, is asked for.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("only this memory itself is handed out, without a copy")
        if stream != _NO_WAIT and self.cuda is not None and self.stream is not None:
            with self.cuda.current():
                event = self.cuda.create_event()
                try:
                    wait_for(self.cuda, self.stream, 0 if stream is None else stream, event)
                finally:
                    self.cuda.destroy_event(event)  # CUDA keeps it for as long as a stream waits for it
        return dlpack.export(self.address, self.shape, self.dtype, dlpack.CUDA, self.device, self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, self.device)

    def batched(self) -> DeviceArray:
        """The same memory with a leading axis of 1."""
        return replace(self, shape=(1, *self.shape))


def wait_for(cuda: CudaApi, earlier: int, later: int, event: int) -> None:
    """Let work that the stream ``later`` gets from now on wait for the work that ``earlier`` has now.

    Streams are numbered as in both protocols, where 1 is the legacy default stream as 0 is in CUDA. The context is
    current. ``event`` may be used again at once: what waits has remembered its present state.
    """
    earlier, later = (0 if stream == _LEGACY else stream for stream in (earlier, later))
    if earlier != later:
        cuda.record(event, earlier)
        cuda.wait(later, event)


def take(array: Any, stream: int, device_type: int = dlpack.CUDA) -> DeviceArray:
    """View a device array of any library.

    Args:
        array: has ``__cuda_array_interface__`` or ``__dlpack__``.
        stream: the stream it will be used in, as a number; a DLPack producer makes that stream wait for its own work.

    Raises:
        FrameError: neither protocol, memory of another device, or not C-contiguous.
    """
    if isinstance(array, DeviceArray):
        return array
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None:
        dtype, shape = np.dtype(interface["typestr"]), tuple(int(side) for side in interface["shape"])
        strides = interface.get("strides")
        _require_contiguous(shape, strides, dtype.itemsize)
        if interface.get("mask") is not None:
            raise FrameError("The device array has a mask", expected="a plain array")
        return DeviceArray(int(interface["data"][0]), shape, dtype, array, interface.get("stream"))
    if hasattr(array, "__dlpack__"):
        kind, device = array.__dlpack_device__()
        if int(kind) != device_type:
            raise FrameError(
                f"The array is in memory of DLPack device type {int(kind)}",
                expected=f"type {device_type}: memory of an NVIDIA GPU",
                fix="Move it to the GPU, or call the model with the NumPy array",
            )
        capsule = array.__dlpack__(stream=stream or _LEGACY) if device_type == dlpack.CUDA else array.__dlpack__()
        view = dlpack.take(capsule)
        _require_contiguous(view.shape, view.strides, view.dtype.itemsize)
        return DeviceArray(view.address, view.shape, view.dtype, view, None, int(device))
    raise FrameError(
        f"A {type(array).__name__} is no device array",
        expected="an object with __cuda_array_interface__ or __dlpack__: CuPy, PyTorch, Numba, PyCUDA",
    )


def _require_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int) -> None:
    """Strides in bytes; None means C order. Axes of length 1 may have any."""
    if strides is None:
        return
    step = itemsize
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side != 1 and stride != step:
            raise FrameError(
                f"The device array of shape {shape} has strides {tuple(strides)} bytes",
                expected="C order without gaps",
                fix="Copy it first: cupy.ascontiguousarray(a), or a.contiguous() in PyTorch",
            )
        step *= side
