"""TensorRT and TensorRT-RTX: engines on the GPU, found or built by :mod:`derain.runtime.engine`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import ClassVar

from derain.errors import BackendError, ModelFileError
from derain.runtime.backends.base import Backend, Buffers, register
from derain.runtime.backends.cuda_api import CudaApi
from derain.runtime.backends.cuda_python import CudaPython, import_runtime
from derain.runtime.backends.device_runner import DeviceRunner, Ticket
from derain.runtime.backends.engine_api import DeviceEngine, TensorInfo
from derain.runtime.backends.tensorrt_engine import TensorRtEngine
from derain.runtime.engine.driver import Driver, probe_driver
from derain.runtime.engine.kernels import kernel_store
from derain.runtime.engine.record import EngineRecord
from derain.runtime.engine.toolkit import Toolkit, ToolkitName, import_toolkit

_log = logging.getLogger("derain.engine")
_MOST_CONTEXTS = 4  # each has scratch memory, and the memory of three frames


class OpenPlan:
    """A deserialised plan and its runners: each thread has one of its own, with a context, streams and slots.

    The runner of a thread that has ended goes to the next new one. Where there are :data:`_MOST_CONTEXTS`, or the GPU
    has no memory for another, a thread takes turns with others in the first.
    """

    def __init__(self, cuda: CudaApi, engine: DeviceEngine) -> None:
        self._cuda = cuda
        self._engine = engine
        self._lock = threading.Lock()
        try:
            self._runners = [DeviceRunner(cuda, engine)]
        except BaseException:
            self._close_engine()
            raise
        self._of: dict[threading.Thread, DeviceRunner] = {}

    @property
    def tensors(self) -> list[TensorInfo]:
        """Inputs and outputs of the engine."""
        return list(self._runners[0].tensors.values())

    @property
    def runner(self) -> DeviceRunner:
        """That of the calling thread."""
        me = threading.current_thread()
        with self._lock:
            if me not in self._of:
                self._of = {thread: runner for thread, runner in self._of.items() if thread.is_alive()}
                self._of[me] = self._free() or self._another()
            return self._of[me]

    def infer(self, inputs: Buffers, outputs: Buffers) -> None:
        """One frame, in and out."""
        self.runner.infer(inputs, outputs)

    def close(self) -> None:
        """Give everything back."""
        with self._lock, ExitStack() as stack:
            stack.callback(self._close_engine)
            for runner in self._runners:
                stack.callback(runner.close)

    def _free(self) -> DeviceRunner | None:
        """A runner that no thread has used yet, or whose thread has ended."""
        taken = set(self._of.values())
        return next((runner for runner in self._runners if runner not in taken), None)

    def _another(self) -> DeviceRunner:
        if len(self._runners) < _MOST_CONTEXTS:
            try:
                self._runners.append(DeviceRunner(self._cuda, self._engine))
            except BackendError as error:
                _log.warning("Threads share an execution context: %s", error)
            else:
                return self._runners[-1]
        return self._runners[0]

    def _close_engine(self) -> None:
        with self._cuda.current():
            self._engine.close()


def deserialise(toolkit: Toolkit, cuda: CudaApi, plan: bytes) -> OpenPlan:
    """Make an engine of checked bytes. Only where the driver works: parts of TensorRT crash without one.

    Raises:
        PlanError: TensorRT refuses it.
        BackendError: out of memory, or TensorRT does not start.
    """
    kernels = kernel_store(plan, toolkit, probe_driver()) if toolkit.ahead_of_time else None
    with cuda.current():
        engine = TensorRtEngine(toolkit, plan, kernels)
    return OpenPlan(cuda, engine)


@contextmanager
def opened(toolkit: Toolkit, cuda: CudaApi, plan: bytes) -> Iterator[OpenPlan]:
    """:func:`deserialise`, closed at the end of the block."""
    made = deserialise(toolkit, cuda, plan)
    try:
        yield made
    finally:
        made.close()


class EngineBackend(Backend):
    """What both TensorRTs share. ``cuda``, where set before :meth:`open`, is used instead of a new CUDA layer."""

    toolkit_name: ClassVar[ToolkitName]
    extra = "tensorrt"
    context_per_thread = True
    cuda: CudaApi | None = None
    record: EngineRecord
    """Of the engine in use; set by :meth:`open`."""

    @classmethod
    def import_package(cls) -> ModuleType:
        # The driver first: asking it is cheap and safe, and it is what is missing most often.
        driver = probe_driver()
        if not driver.usable:
            raise BackendError(f"The backend '{cls.name}' needs an NVIDIA GPU, and {driver.problem}")
        module: ModuleType = import_toolkit(cls.toolkit_name).module
        import_runtime()
        return module

    @property
    def device(self) -> str:
        """The engine, its version and the device."""
        toolkit = import_toolkit(self.toolkit_name)
        driver = probe_driver()
        return f"{toolkit} on {driver.gpus[0].name if driver.gpus else 'no GPU'}"

    def submit(self, inputs: Buffers) -> Ticket:
        """Begin one inference; up to three of each thread may be under way. See :meth:`DeviceRunner.submit`."""
        return self.runner.submit(inputs)

    def collect(self, ticket: Ticket, outputs: Buffers) -> None:
        """Take the results of an inference, of whichever thread. See :meth:`DeviceRunner.collect`."""
        self._require_open()
        ticket.runner.collect(ticket, outputs)

    @property
    def runner(self) -> DeviceRunner:
        """The calling thread's runner, for frames in flight and for device memory.

        Raises:
            BackendError: closed.
        """
        self._require_open()
        return self._plan.runner

    def _open_impl(self) -> None:
        from derain.runtime.engine.find import find_engine  # it imports this package

        driver: Driver = probe_driver()
        if not driver.usable:
            raise BackendError(f"The backend '{self.name}' needs an NVIDIA GPU, and {driver.problem}")
        toolkit = import_toolkit(self.toolkit_name)
        cuda = self.cuda or CudaPython()

        engine = find_engine(self.path, self.card, toolkit, driver, lambda plan: opened(toolkit, cuda, plan))
        self.record = engine.record
        self._plan = deserialise(toolkit, cuda, engine.plan)
        try:
            self._require_engine_ports()
        except BaseException:
            self._plan.close()
            raise

    def _close_impl(self) -> None:
        self._plan.close()
        del self._plan

    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        self._plan.infer(inputs, outputs)

    def _require_open(self) -> None:
        if not self._open:
            raise BackendError(f"The backend '{self.name}' is closed", fix="Open it again, or load the model again")

    def _require_engine_ports(self) -> None:
        tensors = self._plan.tensors
        try:
            self.require_ports(
                {tensor.name: tensor.dtype for tensor in tensors if tensor.is_input},
                {tensor.name: tensor.dtype for tensor in tensors if not tensor.is_input},
            )
        except ModelFileError as error:
            raise ModelFileError(error.found, expected=error.expected, fix="Build the engine again") from error


@register
class TensorRt(EngineBackend):
    """The TensorRT of JetPack and of NVIDIA's packages."""

    name = "tensorrt"
    package = "tensorrt"
    toolkit_name = "tensorrt"


@register
class TensorRtRtx(EngineBackend):
    """TensorRT-RTX, for GeForce and RTX GPUs."""

    name = "tensorrt-rtx"
    package = "tensorrt_rtx"
    toolkit_name = "tensorrt-rtx"
