from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from standin import card_of, save_model

from derain.card import Precision, read_card
from derain.errors import BackendError, MissingDependencyError, ModelFileError, UsageError
from derain.runtime import backends
from derain.runtime.backends import base, choose, find, threads
from derain.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from derain.runtime.backends.openvino_cpu import OpenVinoCpu

ALL = [OnnxRuntimeCpu, OpenVinoCpu]


@pytest.fixture
def frame() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (1, 37, 53, 3), np.uint8)


@pytest.fixture
def standin(tmp_path: Path) -> Path:
    return save_model(tmp_path / "standin.onnx")


def infer(backend: base.Backend, frame: Any) -> tuple[Any, Any]:
    clean, rain = np.zeros_like(frame), np.zeros(frame.shape[:3], np.float32)
    backend.infer({"frame": frame}, {"derained": clean, "attention": rain})
    return clean, rain


def test_backends_agree(standin: Path, frame: Any) -> None:
    results = []
    for kind in ALL:
        with kind(standin, read_card(standin)) as backend:
            results.append(infer(backend, frame))
    (clean_a, rain_a), (clean_b, rain_b) = results
    assert clean_a.std() > 10
    assert np.abs(clean_a.astype(int) - clean_b).max() <= 1  # ties are rounded up by one, to even by the other
    assert np.abs(rain_a - rain_b).max() < 1e-5


@pytest.mark.parametrize("kind", ALL)
def test_read_only_and_changing_sizes(kind: type[base.Backend], standin: Path, frame: Any) -> None:
    with kind(standin, read_card(standin), threads=1) as backend:
        for height, width in ((37, 53), (8, 9), (37, 53), (1, 1)):
            part = np.ascontiguousarray(frame[:, :height, :width])
            before = infer(backend, part)[0]
            part.flags.writeable = False
            np.testing.assert_array_equal(infer(backend, part)[0], before)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shape", [(1, 36, 53, 3), (1, 40, 53, 3), (2, 37, 53, 3)])
def test_wrong_output_shape_is_an_error(
    kind: type[base.Backend], shape: tuple[int, ...], standin: Path, frame: Any
) -> None:
    threads = 1  # with which OpenVINO itself would not tell
    with kind(standin, read_card(standin), threads) as backend, pytest.raises(BackendError, match="shape"):
        backend.infer(
            {"frame": frame}, {"derained": np.zeros(shape, np.uint8), "attention": np.zeros((1, 37, 53), np.float32)}
        )


@pytest.mark.parametrize("kind", ALL)
def test_wrong_input_type_is_an_error(kind: type[base.Backend], standin: Path, frame: Any) -> None:
    with kind(standin, read_card(standin)) as backend, pytest.raises(BackendError, match=r"failed on .*standin\.onnx"):
        infer(backend, frame.astype(np.float64))


@pytest.mark.parametrize("kind", ALL)
def test_card_that_contradicts_its_graph(kind: type[base.Backend], tmp_path: Path) -> None:
    liar = card_of("float")
    ports = [port.model_copy(update={"dtype": "uint8"}) for port in liar.inputs]
    path = save_model(tmp_path / "liar.onnx", "uint8", card=card_of(inputs=ports, outputs=liar.outputs))
    with pytest.raises(ModelFileError, match="has the outputs"):
        kind(path, read_card(path)).open()


@pytest.mark.parametrize("kind", ALL)
def test_truncated_graph(kind: type[base.Backend], standin: Path) -> None:
    card = read_card(standin)
    standin.write_bytes(standin.read_bytes()[:200])
    with pytest.raises(BackendError, match="cannot load"):
        kind(standin, card).open()


@pytest.mark.parametrize("kind", ALL)
def test_closed_backend_refuses(kind: type[base.Backend], standin: Path, frame: Any) -> None:
    backend = kind(standin, read_card(standin))
    with pytest.raises(BackendError, match="closed"):
        infer(backend, frame)
    backend.open()
    with pytest.raises(BackendError, match="already open"):
        backend.open()
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        infer(backend, frame)


def test_onnxruntime_computes_int8_exactly_by_option(standin: Path) -> None:
    with OnnxRuntimeCpu(standin, read_card(standin)) as backend:
        options = backend._session.get_session_options()
        assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_registry_refuses_duplicates_and_unknown_names() -> None:
    class Twin(OnnxRuntimeCpu):
        name: ClassVar[str] = "onnxruntime"

    with pytest.raises(ValueError, match="'onnxruntime' is taken"):
        base.register(Twin)
    assert base.register(OnnxRuntimeCpu) is OnnxRuntimeCpu
    with pytest.raises(UsageError, match=r"no backend 'onnx'.*auto, .*onnxruntime, .*openvino"):
        find("onnx")


def test_absent_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVinoCpu, "package", "no_such_package_zz")
    assert "derain[openvino]" in str(backends.available()["openvino"])
    assert backends.available()["onnxruntime"] is None
    with pytest.raises(MissingDependencyError, match=r"derain\[openvino\]"):
        choose("openvino", card_of())


def test_auto_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto", card_of())[0] is OpenVinoCpu
    monkeypatch.setattr(OpenVinoCpu, "package", "no_such_package_zz")
    chosen, reason = choose("auto", card_of())
    assert chosen is OnnxRuntimeCpu
    assert "OpenVINO is not installed" in reason
    monkeypatch.setattr(OnnxRuntimeCpu, "package", "no_such_package_zz")
    with pytest.raises(BackendError, match=r"No inference backend.*derain\[cpu\]"):
        choose("auto", card_of())


def test_auto_takes_exact_arithmetic_for_int8() -> None:
    assert choose("auto", card_of(precision=Precision(kind="int8")))[0] is OnnxRuntimeCpu


def test_threads(standin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threads is 0"):
        OnnxRuntimeCpu(standin, read_card(standin), threads=0)
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    monkeypatch.setattr(threads, "_CGROUP_QUOTA", quota)
    assert threads.default_threads() == 1
    quota.write_text("max 100000\n")
    assert threads.default_threads() >= 1
