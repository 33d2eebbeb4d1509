"""A deserialised TensorRT engine: one line for each call of the interface."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from derain.errors import BackendError
from derain.runtime.backends.engine_api import PlanError, TensorInfo
from derain.runtime.engine.build import make_logger
from derain.runtime.engine.kernels import KernelStore
from derain.runtime.engine.toolkit import Toolkit

_log = logging.getLogger("derain.engine")


class TensorRtEngine:
    """Implements :class:`derain.runtime.backends.engine_api.DeviceEngine`.

    Create it only where the driver works: parts of TensorRT crash without one.

    Args:
        plan: checked bytes: TensorRT trusts what it is given.
        kernels: where TensorRT-RTX keeps the kernels that it compiles; None for the full TensorRT, which compiles none.

    Raises:
        PlanError: TensorRT refuses the plan.
        BackendError: TensorRT itself does not start.
    """

    def __init__(self, toolkit: Toolkit, plan: bytes, kernels: KernelStore | None = None) -> None:
        trt = self._trt = toolkit.module
        self._toolkit = toolkit
        self._kernels = kernels
        self._compiled: Any = None
        self._logger = make_logger(trt)
        try:
            self._runtime = trt.Runtime(self._logger)
        except Exception as error:
            raise BackendError(f"{toolkit} does not start ({error}): {self._logger.first_error()}") from error
        # A version-compatible plan carries its own small runtime; its checksum says that it is the one we built.
        self._runtime.engine_host_code_allowed = True
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise PlanError(f"{toolkit} refuses the engine: {self._logger.first_error()}")
        self._engine = engine
        self.tensors = [self._tensor(engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]

    def new_context(self) -> TensorRtContext:
        if self._kernels is None:
            context = self._engine.create_execution_context()
        else:
            context = self._engine.create_execution_context(runtime_config=self._compiling(self._kernels))
        if context is None:
            raise BackendError(
                f"{self._toolkit} cannot make an execution context: {self._logger.last_error()}",
                fix="Most often there is too little GPU memory: build with a smaller --max or a --workspace limit",
            )
        return TensorRtContext(context, self.tensors, self._toolkit, self._logger)

    def close(self) -> None:
        if self._kernels is not None and self._compiled is not None:
            self._kernels.write(bytes(memoryview(self._compiled.serialize())))
        # The engine must go before its runtime.
        self._compiled = None
        self._engine = None
        self._runtime = None

    def _compiling(self, kernels: KernelStore) -> Any:
        """TensorRT-RTX's settings for a context: kernels are compiled for a size at once, and kept."""
        config = self._engine.create_runtime_config()
        # The default compiles beside the first frames of a size, which run on slower kernels: a CUDA graph captured
        # then would keep the slower ones for good.
        strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = strategy
        if self._compiled is None:
            self._compiled = config.create_runtime_cache()
            kept = kernels.read()
            if kept and not self._compiled.deserialize(kept):
                _log.warning("TensorRT-RTX refuses '%s': the kernels are compiled again", kernels.path)
        config.set_runtime_cache(self._compiled)
        return config

    def _tensor(self, name: str) -> TensorInfo:
        engine = self._engine
        is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
        dtype = np.dtype(self._trt.nptype(engine.get_tensor_dtype(name))).name
        smallest = largest = None
        if is_input:
            low, _, high = engine.get_tensor_profile_shape(name, 0)
            smallest, largest = tuple(low), tuple(high)
        return TensorInfo(name, is_input, dtype, tuple(engine.get_tensor_shape(name)), largest, smallest)


class TensorRtContext:
    """Implements :class:`derain.runtime.backends.engine_api.DeviceContext`."""

    def __init__(self, context: Any, tensors: list[TensorInfo], toolkit: Toolkit, logger: Any) -> None:
        self._context = context
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._toolkit = toolkit
        self._logger = logger

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        tensor = self._tensors[name]
        sides = zip(tensor.smallest or (), shape, tensor.largest or (), strict=False)
        # Asked here and not only of TensorRT: its own answer is False and a line in the log.
        inside = len(shape) == len(tensor.shape) and all(low <= side <= high for low, side, high in sides)
        if not inside or not self._context.set_input_shape(name, shape):
            raise BackendError(
                f"The engine does not take an input '{name}' of shape {shape}",
                expected=f"from {tensor.smallest} to {tensor.largest}",
                fix="Build it for other sizes: derain build --min WxH --opt WxH --max WxH",
            )

    def output_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(name))

    def set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise BackendError(f"{self._toolkit} refuses the memory for '{name}': {self._logger.last_error()}")

    def capturable(self, stream: int) -> bool:
        # Only TensorRT-RTX may need memory while it runs, which no graph can hold, and only it can tell.
        return not self._toolkit.ahead_of_time or bool(self._context.is_stream_capturable(stream))

    def enqueue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise BackendError(f"{self._toolkit} could not run the engine: {self._logger.last_error()}")

    def close(self) -> None:
        self._context = None
