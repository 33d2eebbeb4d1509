"""One of the runner's slots: the memory of a frame on its way in, through and out."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from derain.runtime.backends.cuda_api import CudaApi, HostBuffer

Shapes = dict[str, tuple[int, ...]]


class Sized(Protocol):
    """Names the NumPy dtype of a tensor; :class:`derain.runtime.backends.engine_api.TensorInfo` does."""

    @property
    def dtype(self) -> str:
        """NumPy's name."""


class Staging:
    """A tensor's page-locked memory and its device memory, which are one where GPU and CPU share memory.

    The memory grows and never shrinks: frames of a smaller size need no allocation.
    """

    def __init__(self, cuda: CudaApi) -> None:
        self._cuda = cuda
        self._host: HostBuffer | None = None
        self._device: int | None = None
        self._capacity = 0
        self._size = 0

    def resize(self, size: int) -> None:
        """Make room for ``size`` bytes. On failure it is empty."""
        if size > self._capacity:
            self.release()
            self._host = self._cuda.allocate_host(size, mapped=self._cuda.integrated)
            self._device = None if self._cuda.integrated else self._cuda.allocate(size)
            self._capacity = size
        self._size = size

    def release(self) -> None:
        """Give all memory back; what fails stays unknown to us, so that nothing is given back twice."""
        host, device = self._host, self._device
        self._host, self._device, self._capacity, self._size = None, None, 0, 0
        try:
            if device is not None:
                self._cuda.free(device)
        finally:
            if host is not None:
                self._cuda.free_host(host)

    @property
    def host(self) -> NDArray[np.uint8]:
        """The bytes in use, as the CPU sees them."""
        assert self._host is not None
        return self._host.array[: self._size]

    @property
    def address(self) -> int:
        """The bytes as the GPU sees them."""
        if self._device is not None:
            return self._device
        assert self._host is not None
        assert self._host.device_address is not None
        return self._host.device_address

    def array(self, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The bytes in use as an array."""
        return self.host.view(dtype).reshape(shape)


class Slot:
    """Memory, events and graph of one frame in flight.

    Attributes:
        copied, computed, returned: events: the input is on the device; the result is; the result is on the host.
        graph: the captured execution on this slot's memory, None until captured.
        generation: the context's shape generation in which the graph was captured.
    """

    def __init__(self, cuda: CudaApi, tensors: dict[str, Sized]) -> None:
        self._cuda = cuda
        self._tensors = tensors
        self.staging = {name: Staging(cuda) for name in tensors}
        self.shapes: Shapes = {}
        self.busy = False
        self.graph: int | None = None
        self.generation = -1
        self.events: list[int] = []
        try:
            for _ in range(3):
                self.events.append(cuda.create_event())
        except BaseException:
            self.release()
            raise
        self.copied, self.computed, self.returned = self.events

    def resize(self, shapes: Shapes) -> None:
        """Make room for tensors of those shapes. The slot must be idle. A graph on other memory is dropped."""
        if shapes == self.shapes:
            return
        self.drop_graph()
        self.shapes = {}
        for name, shape in shapes.items():
            self.staging[name].resize(int(np.prod(shape)) * np.dtype(self._tensors[name].dtype).itemsize)
        self.shapes = dict(shapes)

    def array(self, name: str) -> NDArray[Any]:
        """A tensor's page-locked memory."""
        return self.staging[name].array(self._tensors[name].dtype, self.shapes[name])

    def drop_graph(self) -> None:
        """Give the graph back. The slot must be idle."""
        graph, self.graph = self.graph, None
        if graph is not None:
            self._cuda.destroy_graph(graph)

    def release(self) -> None:
        """Give everything back. Goes on after an error, and raises the first one."""
        problems: list[Exception] = []
        steps = [self.drop_graph, *(staging.release for staging in self.staging.values())]
        for step in steps:
            try:
                step()
            except Exception as error:
                problems.append(error)
        self.shapes = {}
        while self.events:
            try:
                self._cuda.destroy_event(self.events.pop())
            except Exception as error:
                problems.append(error)
        if problems:
            raise problems[0]
