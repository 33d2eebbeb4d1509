"""ONNX Runtime's providers for GPUs: a silent step back to the CPU is noticed, options come from the card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_machines import SIZES, driver
from standin import card_of, save_model

from derain.card import Precision
from derain.errors import BackendError
from derain.runtime.backends import onnxruntime_gpu


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_model(tmp_path / "edge.onnx", card=card_of(profile=SIZES))


class FakeSession:
    def __init__(self, *_: Any, providers: list[Any], **__: Any) -> None:
        self.asked = providers

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


class FakeRuntime:
    __version__ = "1.23.0"
    InferenceSession = FakeSession

    class SessionOptions:
        log_severity_level = 0

    @staticmethod
    def get_available_providers() -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize("backend", [onnxruntime_gpu.OnnxRuntimeCuda, onnxruntime_gpu.OnnxRuntimeTensorRt])
def test_a_silent_step_back_to_the_cpu_is_an_error(
    backend: Any, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(onnxruntime_gpu, "probe_driver", driver)
    opened = backend(path, card_of(profile=SIZES))
    with pytest.raises(BackendError, match=f"has no {backend.provider}, only .*CPUExecutionProvider"):
        opened.open()
    monkeypatch.setattr(backend, "import_package", classmethod(lambda cls: FakeRuntime))
    with pytest.raises(BackendError, match=f"asked for {backend.provider} and silently took CPUExecutionProvider"):
        opened.open()


def test_the_tensorrt_provider_gets_its_profile_from_the_card(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    options = onnxruntime_gpu.OnnxRuntimeTensorRt(path, card_of(profile=SIZES)).provider_options()
    assert options["trt_profile_min_shapes"] == "frame:1x16x16x3"
    assert options["trt_profile_max_shapes"] == "frame:1x96x128x3"
    assert Path(options["trt_engine_cache_path"]).is_dir()
    assert "trt_fp16_enable" not in options


def test_each_model_and_machine_has_its_own_engines(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider names an engine by the graph's nodes: one of other weights would be taken for this model's."""
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))

    def folders(machine: Any = driver) -> tuple[str, str]:
        monkeypatch.setattr(onnxruntime_gpu, "probe_driver", machine)
        options = onnxruntime_gpu.OnnxRuntimeTensorRt(path, card_of(profile=SIZES)).provider_options()
        return options["trt_engine_cache_path"], options["trt_timing_cache_path"]

    first, timings = folders()
    assert folders() == (first, timings)
    assert Path(first).parent == Path(timings)
    newer = replace(driver(), version="541.0")
    assert len({first, folders(lambda: newer)[0], folders(lambda: driver("Thor", (11, 0)))[0]}) == 3
    save_model(path, blur=False, card=card_of(profile=SIZES))
    assert folders()[0] != first
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "file" / "cache"))
    assert onnxruntime_gpu.OnnxRuntimeTensorRt(path, card_of()).provider_options()["trt_engine_cache_enable"] == "0"
    assert "is built at each start" in caplog.text


@pytest.mark.parametrize(
    ("kind", "flags"),
    [("float32", set()), ("float16", {"trt_fp16_enable"}), ("int8", {"trt_fp16_enable", "trt_int8_enable"})],
)
def test_precision_of_the_card_is_allowed(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: Any, flags: set[str]
) -> None:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    card = card_of(profile=SIZES, precision=Precision(kind=kind))
    options = onnxruntime_gpu.OnnxRuntimeTensorRt(path, card).provider_options()
    assert {name for name in options if name in ("trt_fp16_enable", "trt_int8_enable")} == flags
    assert onnxruntime_gpu.OnnxRuntimeCuda(path, card).provider_options()["use_tf32"] == "0"


class Binding:
    """What is bound: the fake session computes the identity with it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.addresses: dict[str, int] = {}

    def bind_input(self, name: str, device: str, _number: int, _dtype: Any, _shape: Any, address: int) -> None:
        assert device == "cpu"
        self.addresses[name] = address

    bind_output = bind_input

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


class WorkingSession(FakeSession):
    made: list[Binding] = []  # noqa: RUF012

    def get_providers(self) -> list[str]:
        return [self.asked[0][0], "CPUExecutionProvider"]

    @staticmethod
    def _ports(ports: list[Any]) -> list[Any]:
        kinds = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
        return [SimpleNamespace(name=port.name, type=kinds[port.dtype]) for port in ports]

    def get_inputs(self) -> list[Any]:
        return self._ports(card_of().inputs)

    def get_outputs(self) -> list[Any]:
        return self._ports(card_of().outputs)

    def io_binding(self) -> Binding:
        self.made.append(Binding())
        return self.made[-1]

    def run_with_iobinding(self, binding: Binding) -> None:
        binding.calls.append("run")


def test_buffers_are_bound_waited_for_and_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Working(FakeRuntime):
        InferenceSession = WorkingSession

    monkeypatch.setattr(onnxruntime_gpu.OnnxRuntimeCuda, "import_package", classmethod(lambda cls: Working))
    frame = np.zeros((1, 48, 64, 3), np.uint8)
    outputs = {"derained": np.empty_like(frame), "attention": np.empty((1, 48, 64), np.float32)}
    with onnxruntime_gpu.OnnxRuntimeCuda(path, card_of(profile=SIZES)) as backend:
        backend.infer({"frame": frame}, outputs)
    (binding,) = WorkingSession.made
    assert binding.calls == [
        "synchronize_inputs", "run", "synchronize_outputs", "clear_binding_inputs", "clear_binding_outputs",
    ]  # fmt: skip
    assert binding.addresses == {name: array.ctypes.data for name, array in {"frame": frame, **outputs}.items()}
