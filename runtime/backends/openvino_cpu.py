"""OpenVINO on the CPU: the fastest float32 inference on x86."""

from __future__ import annotations

import functools
import threading
from collections import deque
from typing import Any, ClassVar, TypeAlias

import numpy as np

from derain.errors import BackendError
from derain.runtime.backends.base import Backend, Buffers, register, shape_of
from derain.runtime.backends.openvino_graph import streamline

_DTYPES = {"u8": "uint8", "f32": "float32", "f16": "float16"}
_SETTLED = 3  # frames of one size in a row, after which more of them are to be expected
_MOST_LANES = 4  # each holds the arrays of a whole inference
_SIZES_KEPT = 4  # as many sizes as the tiles of one frame have
_LANES: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT", "ENABLE_CPU_PINNING": False}
_TOLERANCE = 1e-3  # of values in [0, 1], and of the share of levels that may differ

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
Requests: TypeAlias = deque[Any]
"""Of one compiled graph, one for each lane; a thread takes one, runs it, and puts it back."""


@functools.cache
def shared_core() -> Any:
    """The one ``openvino.Core`` of this process, which lives as long as the process.

    On CPUs with AMX the CPU plugin gives the thread that loads it a stack of its own for signals, and unmaps it when
    the last core goes (OpenVINO 2026.4). Where another thread lets that core go, the first one is left without: its
    next signal, Ctrl-C or the end of a child process, is a segmentation fault.
    """
    import openvino

    return openvino.Core()


@register
class OpenVinoCpu(Backend):
    """OpenVINO's CPU plugin working on the caller's NumPy buffers as shared memory.

    The plugin computes faster when it knows the size of the frames: fewer copies between layouts, more layers fused.
    So when a size has come :data:`_SETTLED` times in a row, the graph is compiled once more, for this size alone. That
    graph serves if it gives the same result as the first one did, to within rounding.
    """

    name = "openvino"
    package = "openvino"
    extra = "openvino"
    most_lanes = _MOST_LANES
    arithmetic: ClassVar[str] = "f32"
    """What layers compute in, as the plugin calls it."""
    rounding: ClassVar[tuple[int, float]] = (1, _TOLERANCE)
    """How far two compilations of one graph may differ: levels of a picture, and values in [0, 1]."""

    @property
    def device(self) -> str:
        """The engine, its version and the device."""
        return f"OpenVINO {self.import_package().__version__.split('-')[0]} on CPU"

    def _open_impl(self) -> None:
        openvino: Any = self.import_package()
        # Lanes share the cores with whatever feeds them: threads that are bound to a core would wait for that one.
        how = {"PERFORMANCE_HINT": "LATENCY"} if self.lanes == 1 else _LANES | {"NUM_STREAMS": self.lanes}
        self._settings = {
            **how,
            "INFERENCE_NUM_THREADS": self.threads,
            # CPUs with bfloat16 units would silently compute in it; the quality on the card was measured in float32.
            "INFERENCE_PRECISION_HINT": self.arithmetic,
            "CPU_DENORMALS_OPTIMIZATION": "YES",
        }
        try:
            self._core = shared_core()
            self._model = self._core.read_model(str(self.path))
            streamline(self._model, openvino.opset13)
            compiled = self._core.compile_model(self._model, "CPU", self._settings)
            self.require_ports(self._ports(compiled.inputs), self._ports(compiled.outputs))
            self._any_size = self._requests(compiled)
        except (RuntimeError, TypeError) as error:
            raise self.refused("cannot load", error) from error
        self._tensor = openvino.Tensor
        # Shapes of the inputs -> the requests compiled for them; None where only the general ones serve.
        self._fixed: dict[Shapes, Requests | None] = {}
        self._last: Shapes = ()
        self._in_a_row = 0
        self._counting = threading.Lock()

    def _close_impl(self) -> None:
        self._fixed.clear()
        del self._any_size, self._model, self._core

    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        # OpenVINO shares no read-only memory, not even for an input, which it only reads.
        readable = {name: array if array.flags.writeable else array.copy() for name, array in inputs.items()}
        shapes = tuple(array.shape for array in inputs.values())
        self._require_room(inputs, outputs)
        try:
            requests = self._fixed.get(shapes)
            if requests is not None:
                self._run(requests, readable, outputs)
                return
            self._run(self._any_size, readable, outputs)
        except (RuntimeError, TypeError, ValueError) as error:
            raise self.refused("failed on", error) from error
        with self._counting:
            self._in_a_row = self._in_a_row + 1 if shapes == self._last else 1
            self._last = shapes
            settled = self._in_a_row == _SETTLED and shapes not in self._fixed and self._model.is_dynamic()
        if settled:  # the other lanes go on with the general graph meanwhile
            self._fix(shapes, readable, outputs)

    def _require_room(self, inputs: Buffers, outputs: Buffers) -> None:
        """With one thread, the plugin (2026.4) leaves an array that is too small alone, and says nothing."""
        frame = self.card.inputs[0]
        shape = inputs[frame.name].shape
        size = (shape[0], *shape[2:]) if frame.layout == "NCHW" else shape[:3]
        for port in self.card.outputs:
            if port.layout != "NC" and outputs[port.name].shape != shape_of(port, *size):
                raise BackendError(
                    f"The array for '{port.name}' has the shape {outputs[port.name].shape}",
                    expected=f"{shape_of(port, *size)}, for a frame of shape {shape}",
                )

    def _requests(self, compiled: Any) -> Requests:
        return deque(compiled.create_infer_request() for _ in range(self.lanes))

    def _run(self, requests: Requests, inputs: Buffers, outputs: Buffers) -> None:
        request = requests.pop()
        try:
            self._run_one(request, inputs, outputs)
        finally:
            requests.append(request)

    def _run_one(self, request: Any, inputs: Buffers, outputs: Buffers) -> None:
        for name, array in (inputs | outputs).items():
            request.set_tensor(name, self._tensor(array, shared_memory=True))
        request.infer(share_outputs=True)  # by default it would hand out copies of them besides
        for name, array in outputs.items():
            written = request.get_tensor(name)
            # A result of another shape makes the plugin leave our buffer alone and take memory of its own.
            if tuple(written.shape) != array.shape or written.data.ctypes.data != array.ctypes.data:
                raise BackendError(
                    f"{self.device} gave '{name}' the shape {tuple(written.shape)}",
                    expected=f"{array.shape}, as the card of '{self.path}' declares",
                )

    def _fix(self, shapes: Shapes, inputs: Buffers, expected: Buffers) -> None:
        """Compile for one size; keep what agrees with the ``expected`` results of the general graph."""
        while len(self._fixed) >= _SIZES_KEPT:
            self._fixed.pop(next(iter(self._fixed)))
        found = {name: np.empty_like(array) for name, array in expected.items()}
        try:
            model = self._model.clone()
            model.reshape({name: list(array.shape) for name, array in inputs.items()})
            fixed = self._requests(self._core.compile_model(model, "CPU", self._settings))
            self._run(fixed, inputs, found)
            requests: Requests | None = fixed
        except (RuntimeError, TypeError, ValueError, BackendError):
            requests = None  # the general graph has just served, and goes on to
        # OpenVINO 2026.4 has compiled a graph of fixed size into one that overwrites a tensor still to be read.
        agrees = requests is not None and all(
            _agree(found[name], array, *self.rounding) for name, array in expected.items()
        )
        self._fixed[shapes] = requests if agrees else None

    def _ports(self, ports: list[Any]) -> dict[str, str]:
        """Name -> dtype name. A tensor has several names where the plugin merged nodes: the card's one counts."""
        declared = {port.name for port in (*self.card.inputs, *self.card.outputs)}
        return {
            next((name for name in port.names if name in declared), port.any_name): _DTYPES.get(
                port.element_type.get_type_name(), str(port.element_type)
            )
            for port in ports
        }


def _agree(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], levels: int, values: float) -> bool:
    """Whether two results are one but for rounding: few levels differ, and by little; values differ by little."""
    if expected.dtype != np.uint8:
        return bool(np.allclose(found, expected, rtol=values, atol=values))
    apart = np.maximum(found, expected) - np.minimum(found, expected)
    visible = np.count_nonzero(apart >= levels)
    return bool(apart.max(initial=0) <= levels and visible <= max(1, apart.size * _TOLERANCE))
