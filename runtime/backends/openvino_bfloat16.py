"""OpenVINO in bfloat16, on CPUs that have units for it: faster than float32, and another picture by a level or two.

Never chosen by ``auto``: the quality on a model's card was measured in float32. bfloat16 has 8 bits where float32 has
24, and most of a picture passes around the layers that are rounded; docs/benchmarks/cpu.md says what is left of it.
"""

from __future__ import annotations

from types import ModuleType

from derain.errors import BackendError
from derain.runtime.backends.base import register
from derain.runtime.backends.openvino_cpu import OpenVinoCpu, shared_core

_KINDS = ("float32", "float16")


@register
class OpenVinoBfloat16(OpenVinoCpu):
    """:class:`OpenVinoCpu`, but that convolutions and what lies between them compute in bfloat16 (AMX, AVX-512)."""

    name = "openvino-bf16"
    arithmetic = "bf16"
    # Graphs compiled for one size fuse other layers, and so round elsewhere: up to 2 levels and 0.01 were seen.
    rounding = (6, 0.05)

    @property
    def device(self) -> str:
        """The engine, its version, the device and what it computes in."""
        return f"{super().device} in bfloat16"

    @classmethod
    def import_package(cls) -> ModuleType:
        package = super().import_package()
        if "BF16" not in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError(
                f"The backend '{cls.name}' needs a CPU with bfloat16 units (AMX or AVX-512 BF16)",
                fix="Use the backend openvino, which computes in float32",
            )
        return package

    def _open_impl(self) -> None:
        if self.card.precision.kind not in _KINDS:
            raise BackendError(
                f"'{self.path}' computes in {self.card.precision.kind}, which bfloat16 would round once more",
                expected=f"a {' or '.join(_KINDS)} model",
                fix="Use the model that it was calibrated from, or the backend onnxruntime",
            )
        super()._open_impl()
