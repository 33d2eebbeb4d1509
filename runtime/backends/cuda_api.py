"""The narrow part of CUDA that derain uses, as an interface.

Everything above it (slots, overlap, graphs) is written against these few calls, so that it can be tested on a machine
without a GPU against a device that checks order, lifetimes and dependencies. :mod:`cuda_python` is the real thing.

Addresses, streams and events are plain integers: device pointers, ``cudaStream_t`` and ``cudaEvent_t``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from derain.errors import BackendError


class CudaError(BackendError):
    """A CUDA call failed. ``code`` is CUDA's name of the error, such as ``cudaErrorMemoryAllocation``."""

    def __init__(self, call: str, code: str, text: str, fix: str | None = None) -> None:
        super().__init__(f"CUDA: {call} failed with {code} ({text})", fix=fix or _remedy(code))
        self.call = call
        self.code = code

    @property
    def out_of_memory(self) -> bool:
        """Whether there was not enough memory; all else still works."""
        return self.code == "cudaErrorMemoryAllocation"

    @property
    def lost(self) -> bool:
        """Whether the context is gone: nothing on this GPU works again in this process."""
        return self.code in _LOST


_LOST = frozenset(
    {
        "cudaErrorIllegalAddress",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalInstruction",
        "cudaErrorMisalignedAddress",
        "cudaErrorECCUncorrectable",
        "cudaErrorDeviceUninitialized",
        "cudaErrorDevicesUnavailable",
        "cudaErrorContextIsDestroyed",
        "cudaErrorNoDevice",
        "cudaErrorUnknown",
    }
)


def _remedy(code: str) -> str | None:
    if code == "cudaErrorMemoryAllocation":
        return (
            "Close other programs on the GPU, build for a smaller largest size (derain build --max), or use fewer slots"
        )
    if code == "cudaErrorInsufficientDriver":
        return "There is no driver, or it is older than the CUDA runtime installed: derain doctor tells which"
    if code in _LOST:
        return "The GPU is lost to this process: start it again, and look for 'Xid' in the output of dmesg"
    return None


@dataclass(frozen=True)
class HostBuffer:
    """Page-locked host memory.

    Attributes:
        array: uint8, one-dimensional.
        device_address: the same memory as the device sees it, where it was mapped; else None.
    """

    array: NDArray[np.uint8]
    device_address: int | None
    handle: Any


class CudaApi(Protocol):
    """What the runner needs of CUDA. Each call raises :class:`CudaError` when it fails."""

    @property
    def integrated(self) -> bool:
        """Whether GPU and CPU share memory, as on a Jetson: then nothing needs to be copied."""

    @property
    def description(self) -> str:
        """The GPU, for people to read."""

    def current(self) -> AbstractContextManager[None]:
        """Make the context current for the calling thread, for the length of a ``with`` block."""

    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes."""

    def free(self, address: int) -> None:
        """Give device memory back. Nothing that uses it may be under way."""

    def allocate_host(self, size: int, mapped: bool) -> HostBuffer:
        """Page-locked host memory; ``mapped``: also at an address of the device."""

    def free_host(self, buffer: HostBuffer) -> None:
        """Give host memory back."""

    def create_stream(self) -> int:
        """A stream that does not wait for the default stream."""

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back; its work must be over."""

    def synchronize(self, stream: int) -> None:
        """Block until all work of a stream is over."""

    def create_event(self) -> int:
        """An event without timing."""

    def destroy_event(self, event: int) -> None:
        """Give an event back."""

    def record(self, event: int, stream: int) -> None:
        """The event is over when the work that the stream has now is over."""

    def wait(self, stream: int, event: int) -> None:
        """Later work of the stream begins when the event is over; the host does not wait."""

    def synchronize_event(self, event: int) -> None:
        """Block until the event is over."""

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        """Host to device, in stream order. ``source`` is page-locked and must not change until it is over."""

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        """Device to host, in stream order. ``target`` is page-locked and must not be read until it is over."""

    def begin_capture(self, stream: int) -> None:
        """From here on the stream's work is recorded into a graph instead of being run."""

    def end_capture(self, stream: int) -> int:
        """The recorded graph, ready to launch."""

    def launch_graph(self, graph: int, stream: int) -> None:
        """Run a graph in stream order."""

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back; it must not be running."""

    def free_memory(self) -> tuple[int, int]:
        """(free, all) device memory, bytes."""
