"""CUDA through NVIDIA's own Python bindings (``cuda-bindings``): one line for each call of the interface."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.errors import BackendError, MissingDependencyError
from derain.runtime.backends.cuda_api import CudaError, HostBuffer
from derain.runtime.engine.driver import probe_driver


def import_runtime() -> Any:
    """The bindings of the CUDA runtime.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
        BackendError: no driver, no GPU, or a driver older than the bindings.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingDependencyError(
            "cuda-bindings", needed_for="Running an engine on a GPU", extra="tensorrt"
        ) from error
    driver = probe_driver()
    if not driver.usable:
        raise BackendError(f"No engine can run: {driver.problem}", fix="See derain doctor")
    status, version = runtime.cudaRuntimeGetVersion()
    if int(status) == 0:
        too_old = driver.too_old_for((version // 1000, version % 1000 // 10))
        if too_old is not None:
            major = driver.cuda[0] if driver.cuda else 12
            raise BackendError(
                f"No engine can run: {too_old}", fix=f'Run: pip install "cuda-bindings>={major},<{major + 1}"'
            )
    return runtime


class CudaPython:
    """The CUDA runtime API on one GPU, in that GPU's primary context, which other libraries share.

    Args:
        device: number of the GPU.
    """

    def __init__(self, device: int = 0) -> None:
        self._runtime = import_runtime()
        self._device = device
        with self.current():
            attribute = self._runtime.cudaDeviceAttr.cudaDevAttrIntegrated
            self._integrated = bool(self._call("cudaDeviceGetAttribute", attribute, device))
            name: bytes = self._call("cudaGetDeviceProperties", device).name
            self._description = name.decode(errors="replace").rstrip("\0")

    @property
    def integrated(self) -> bool:
        return self._integrated

    @property
    def description(self) -> str:
        return self._description

    @contextmanager
    def current(self) -> Iterator[None]:
        # The runtime's device belongs to the thread and stays; setting it again costs nothing.
        self._call("cudaSetDevice", self._device)
        yield

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def allocate_host(self, size: int, mapped: bool) -> HostBuffer:
        flags = self._runtime.cudaHostAllocMapped if mapped else self._runtime.cudaHostAllocDefault
        address = int(self._call("cudaHostAlloc", size, flags))
        array: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        seen = int(self._call("cudaHostGetDevicePointer", address, 0)) if mapped else None
        return HostBuffer(array, seen, address)

    def free_host(self, buffer: HostBuffer) -> None:
        self._call("cudaFreeHost", buffer.handle)

    def create_stream(self) -> int:
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def create_event(self) -> int:
        return int(self._call("cudaEventCreateWithFlags", self._runtime.cudaEventDisableTiming))

    def destroy_event(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        self._call("cudaEventSynchronize", event)

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, source.ctypes.data, source.nbytes, kind, stream)

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.ctypes.data, address, target.nbytes, kind, stream)

    def begin_capture(self, stream: int) -> None:
        # Thread-local: what other threads of the application do meanwhile must not end the capture.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def free_memory(self) -> tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime: its result, or a :class:`CudaError`."""
        status, *results = getattr(self._runtime, name)(*arguments)
        if int(status) != 0:
            _, text = self._runtime.cudaGetErrorString(status)
            words = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            raise CudaError(name, str(getattr(status, "name", int(status))), words)
        if not results:
            return None
        return results[0] if len(results) == 1 else tuple(results)


class ForeignContext(CudaPython):
    """As :class:`CudaPython`, in a context that belongs to the application.

    Args:
        context: has ``push()`` and ``pop()``, as ``pycuda.driver.Context`` does.
    """

    def __init__(self, context: Any, device: int = 0) -> None:
        self._context = context
        super().__init__(device)

    @contextmanager
    def current(self) -> Iterator[None]:
        # cudaSetDevice would leave the application's context for the primary one, where its memory does not exist.
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()
