"""OpenVINO on the CPU: the fastest float32 inference on x86."""

from __future__ import annotations

from typing import Any

from derain.errors import BackendError
from derain.runtime.backends.base import Backend, Buffers, register

_DTYPES = {"u8": "uint8", "f32": "float32", "f16": "float16"}


@register
class OpenVinoCpu(Backend):
    """OpenVINO's CPU plugin working on the caller's NumPy buffers as shared memory."""

    name = "openvino"
    package = "openvino"
    extra = "openvino"

    @property
    def device(self) -> str:
        """The engine, its version and the device."""
        return f"OpenVINO {self.import_package().__version__.split('-')[0]} on CPU"

    def _open_impl(self) -> None:
        openvino: Any = self.import_package()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            # CPUs with bfloat16 units would silently compute in it; the quality on the card was measured in float32.
            "INFERENCE_PRECISION_HINT": "f32",
            "CPU_DENORMALS_OPTIMIZATION": "YES",
        }
        try:
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(str(self.path)), "CPU", settings)
            self.require_ports(self._ports(compiled.inputs), self._ports(compiled.outputs))
            self._request = compiled.create_infer_request()
        except (RuntimeError, TypeError) as error:
            raise self.refused("cannot load", error) from error
        self._tensor = openvino.Tensor

    def _close_impl(self) -> None:
        del self._request

    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        try:
            # OpenVINO shares no read-only memory, not even for an input, which it only reads. A tensor does not keep
            # its array alive, so the copies need a name until the inference is over.
            readable = {name: array if array.flags.writeable else array.copy() for name, array in inputs.items()}
            for name, array in (readable | outputs).items():
                self._request.set_tensor(name, self._tensor(array, shared_memory=True))
            self._request.infer()
            for name, array in outputs.items():
                written = self._request.get_tensor(name)
                # A result of another shape makes the plugin leave our buffer alone and take memory of its own.
                if tuple(written.shape) != array.shape or written.data.ctypes.data != array.ctypes.data:
                    raise BackendError(
                        f"{self.device} gave '{name}' the shape {tuple(written.shape)}",
                        expected=f"{array.shape}, as the card of '{self.path}' declares",
                    )
        except (RuntimeError, TypeError, ValueError) as error:
            raise self.refused("failed on", error) from error

    def _ports(self, ports: list[Any]) -> dict[str, str]:
        """Name -> dtype name. A tensor has several names where the plugin merged nodes: the card's one counts."""
        declared = {port.name for port in (*self.card.inputs, *self.card.outputs)}
        return {
            next((name for name in port.names if name in declared), port.any_name): _DTYPES.get(
                port.element_type.get_type_name(), str(port.element_type)
            )
            for port in ports
        }
