"""ONNX Runtime's CUDA and TensorRT providers, with the silent step back to the CPU detected."""

from __future__ import annotations

import hashlib
import importlib
import logging
from types import ModuleType
from typing import Any, ClassVar

from derain.errors import BackendError
from derain.files import file_sha256
from derain.runtime.backends.base import Backend, Buffers, register
from derain.runtime.engine.driver import probe_driver
from derain.runtime.engine.options import input_shape
from derain.runtime.engine.store import cache_folder

_log = logging.getLogger("derain.engine")
_CPU = "CPUExecutionProvider"
_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
_INSTALL = (
    "The packages onnxruntime and onnxruntime-gpu exclude each other: pip uninstall onnxruntime onnxruntime-gpu, then "
    'pip install "derain[gpu]"; on a Jetson use the wheel of NVIDIA\'s Jetson index'
)


class OnnxRuntimeGpu(Backend):
    """A provider that runs on the GPU. ``onnxruntime-gpu`` lists its providers even where none can work."""

    package = "onnxruntime"
    extra = "gpu"
    provider: ClassVar[str]
    behind: ClassVar[tuple[str, ...]] = ()
    """Providers for nodes that the first one does not take, before the CPU."""

    @classmethod
    def import_package(cls) -> ModuleType:
        driver = probe_driver()
        if not driver.usable:
            raise BackendError(f"The backend '{cls.name}' needs an NVIDIA GPU, and {driver.problem}")
        runtime: Any = super().import_package()
        listed = runtime.get_available_providers()
        if cls.provider not in listed:
            raise BackendError(
                f"The installed ONNX Runtime {runtime.__version__} has no {cls.provider}, only {', '.join(listed)}",
                fix=_INSTALL,
            )
        module: ModuleType = runtime
        return module

    @property
    def device(self) -> str:
        """The engine, its version and the device."""
        runtime: Any = importlib.import_module(self.package)
        gpus = probe_driver().gpus
        return f"ONNX Runtime {runtime.__version__}, {self.provider}, on {gpus[0].name if gpus else 'no GPU'}"

    def provider_options(self) -> dict[str, str]:
        """Options of the first provider, from the card."""
        return {}

    def _open_impl(self) -> None:
        runtime: Any = self.import_package()
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # its errors are raised here as well; printed, they would come twice
        asked = [(self.provider, self.provider_options()), *((name, {}) for name in self.behind), (_CPU, {})]
        try:
            self._session = runtime.InferenceSession(str(self.path), options, providers=asked)
        except Exception as error:  # the package raises its own classes, which share only Exception
            raise self.refused("cannot load", error) from error
        used = self._session.get_providers()
        if used[0] != self.provider:
            del self._session
            raise BackendError(
                f"ONNX Runtime was asked for {self.provider} and silently took {used[0]}",
                expected="the provider's libraries: CUDA and cuDNN, and for TensorRT libnvinfer, of the versions it "
                "was built for",
                fix="Run derain doctor; to run on the CPU on purpose choose the backend 'onnxruntime'",
            )
        self.require_ports(
            {port.name: _DTYPES.get(port.type, port.type) for port in self._session.get_inputs()},
            {port.name: _DTYPES.get(port.type, port.type) for port in self._session.get_outputs()},
        )
        self._binding = self._session.io_binding()

    def _close_impl(self) -> None:
        del self._binding, self._session

    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        try:
            for name, array in inputs.items():
                self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            for name, array in outputs.items():
                self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            # The provider copies in its own stream: both ends must be waited for.
            self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        except Exception as error:
            raise self.refused("failed on", error) from error
        finally:
            self._binding.clear_binding_inputs()
            self._binding.clear_binding_outputs()


@register
class OnnxRuntimeCuda(OnnxRuntimeGpu):
    """The CUDA provider: any model, no engine to build."""

    name = "onnxruntime-cuda"
    provider = "CUDAExecutionProvider"

    def provider_options(self) -> dict[str, str]:
        """Tune convolutions once for each shape; TF32 would be another precision than the card's."""
        return {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "0"}


@register
class OnnxRuntimeTensorRt(OnnxRuntimeGpu):
    """The TensorRT provider, with its engines kept in derain's cache."""

    name = "onnxruntime-tensorrt"
    provider = "TensorrtExecutionProvider"
    behind = ("CUDAExecutionProvider",)

    def provider_options(self) -> dict[str, str]:
        """Engine and timing cache, precision, and the card's sizes as the profile."""
        shared = cache_folder() / "onnxruntime"
        folder = shared / self._digest()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            cached = "1"
        except OSError as error:
            _log.warning("'%s' cannot be written (%s): the engine is built at each start", folder, error.strerror)
            cached = "0"
        options = {
            "trt_engine_cache_enable": cached,
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": cached,
            "trt_timing_cache_path": str(shared),
        }
        # The provider builds weakly typed networks, in which float16 and int8 must be allowed to be used.
        if self.card.precision.kind == "float16":
            options["trt_fp16_enable"] = "1"
        if self.card.precision.kind == "int8":
            options |= {"trt_int8_enable": "1", "trt_fp16_enable": "1"}
        profile = self.card.profile
        if not profile.fixed:
            for name, size in (("min", profile.min), ("opt", profile.opt), ("max", profile.max)):
                shapes = (
                    f"{port.name}:{'x'.join(map(str, input_shape(port, size, self.card.context_size)))}"
                    for port in self.card.inputs
                )
                options[f"trt_profile_{name}_shapes"] = ",".join(shapes)
        return options

    def _digest(self) -> str:
        """Name of the folder of this model's engines on this machine.

        The provider names engines by the graph's nodes alone: of a network that was trained on, or of another driver,
        it would take the old one.
        """
        runtime: Any = importlib.import_module(self.package)
        driver = probe_driver()
        machine = f"{runtime.__version__}|{driver.gpus}|{driver.cuda}|{driver.version}"
        return hashlib.sha256(f"{file_sha256(self.path)}|{machine}".encode()).hexdigest()[:16]
