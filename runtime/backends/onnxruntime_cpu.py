"""ONNX Runtime on the CPU: runs everywhere, and computes INT8 graphs exactly."""

from __future__ import annotations

from collections import deque
from typing import Any

from derain.errors import BackendError
from derain.runtime.backends.base import Backend, Buffers, register

_PROVIDER = "CPUExecutionProvider"
_MOST_LANES = 4  # each holds the arrays of a whole inference
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}


@register
class OnnxRuntimeCpu(Backend):
    """ONNX Runtime's CPU provider, bound to the caller's NumPy buffers: no copy and no allocation for a frame."""

    name = "onnxruntime"
    package = "onnxruntime"
    extra = "cpu"
    most_lanes = _MOST_LANES

    @property
    def device(self) -> str:
        """The engine, its version and the device."""
        return f"ONNX Runtime {self.import_package().__version__} on CPU"

    def _open_impl(self) -> None:
        runtime: Any = self.import_package()
        options = runtime.SessionOptions()
        # With one thread, an inference runs in the thread that calls it, and nothing spins.
        options.intra_op_num_threads = self.threads // self.lanes
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its errors are raised here as well; printed, they would come twice
        # The default INT8 kernels saturate on CPUs without VNNI: 18.8 dB against exact arithmetic on one network.
        options.add_session_config_entry("session.x64quantprecision", "1")
        # It would round biases to int32; in the file and in TensorRT they are floats. Pictures moved by up to 3 levels.
        options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
        if self.card.precision.kind == "float8":  # it would fuse FP8 pairs into operators that know INT8 alone
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        # ReLU networks on dark frames produce denormal numbers, which cost 100 times a normal multiplication.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        try:
            self._session = runtime.InferenceSession(str(self.path), options, providers=[_PROVIDER])
        except Exception as error:  # the package raises its own classes, which share only Exception
            raise self.refused("cannot load", error) from error
        if self._session.get_providers() != [_PROVIDER]:
            raise BackendError(
                f"ONNX Runtime chose {self._session.get_providers()}", expected=f"[{_PROVIDER}], which was asked for"
            )
        self.require_ports(
            {port.name: _DTYPES.get(port.type, port.type) for port in self._session.get_inputs()},
            {port.name: _DTYPES.get(port.type, port.type) for port in self._session.get_outputs()},
        )
        self._bindings = deque(self._session.io_binding() for _ in range(self.lanes))

    def _close_impl(self) -> None:
        del self._bindings, self._session

    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        binding = self._bindings.pop()
        try:
            for name, array in inputs.items():
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            for name, array in outputs.items():
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise self.refused("failed on", error) from error
        finally:
            # The binding holds bare addresses; the arrays belong to the caller and may go away after this call.
            binding.clear_binding_inputs()
            binding.clear_binding_outputs()
            self._bindings.append(binding)
