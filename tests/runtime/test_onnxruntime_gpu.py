"""ONNX Runtime's providers for GPUs: a silent step back to the CPU is noticed, options come from the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_machines import SIZES, driver
from standin import card_of, save_model

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
