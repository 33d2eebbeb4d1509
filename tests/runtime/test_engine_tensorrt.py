"""The engine's calls, on a TensorRT that has the names of one real version alone; kernels of TensorRT-RTX are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_machines import driver
from fake_trt import VERSIONS, FakeTrt

from derain.errors import BackendError
from derain.runtime.backends.engine_api import PlanError
from derain.runtime.backends.tensorrt_engine import TensorRtEngine
from derain.runtime.engine.build import make_logger
from derain.runtime.engine.kernels import KernelStore, kernel_store
from derain.runtime.engine.toolkit import Toolkit

RTX = "rtx-1.7.1"


@pytest.fixture(params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_engine(trt: FakeTrt, version: str, kernels: KernelStore | None = None) -> TensorRtEngine:
    toolkit = Toolkit(VERSIONS[version], trt, version)  # type: ignore[arg-type]
    return TensorRtEngine(toolkit, b"plan", kernels)


def store(folder: Path) -> KernelStore:
    return KernelStore(folder / "kernels.cache")


def test_an_engine_is_opened_run_and_closed(version: str, tmp_path: Path) -> None:
    trt = FakeTrt(version)
    engine = open_engine(trt, version, store(tmp_path) if version == RTX else None)
    frame, derained, attention = engine.tensors
    assert (frame.name, frame.is_input, frame.dtype, frame.shape) == ("frame", True, "uint8", (-1, -1, -1, 3))
    assert (frame.smallest, frame.largest) == ((1, 16, 16, 3), (1, 96, 128, 3))
    assert (derained.is_input, attention.dtype) == (False, "float32")
    context = engine.new_context()
    context.set_shape("frame", (1, 48, 64, 3))
    context.set_address("frame", 4096)
    assert context.output_shape("attention") == (1, 48, 64)
    assert context.capturable(7)
    context.enqueue(7)
    context.close()
    engine.close()
    assert [call for call in trt._log if "_" in call] == ["set_input_shape", "set_tensor_address", "execute_async_v3"]
    assert engine._runtime is None


@pytest.mark.parametrize(
    ("flag", "kind", "message"),
    [
        ("_refuses_plan", PlanError, "refuses the engine: the version tag does not match"),
        ("_does_not_start", BackendError, r"does not start \(pybind11"),
        ("_no_context", BackendError, "cannot make an execution context: out of memory.*--max"),
    ],
)
def test_what_tensorrt_refuses_comes_with_its_reason(version: str, flag: str, kind: Any, message: str) -> None:
    trt = FakeTrt(version)
    setattr(trt, flag, True)
    with pytest.raises(kind, match=message):
        open_engine(trt, version).new_context()


def test_calls_that_answer_no_are_errors_with_the_last_reason(version: str) -> None:
    trt = FakeTrt(version)
    context = open_engine(trt, version).new_context()
    with pytest.raises(BackendError, match=r"of shape \(1, 4, 4, 3\).*from \(1, 16, 16, 3\) to \(1, 96, 128, 3\)"):
        context.set_shape("frame", (1, 4, 4, 3))
    assert trt._log[-1] == "context"  # it was not even asked
    trt._refuses |= {"set_input_shape", "set_tensor_address", "execute_async_v3"}
    with pytest.raises(BackendError, match="does not take an input 'frame'"):
        context.set_shape("frame", (1, 48, 64, 3))
    with pytest.raises(BackendError, match="memory for 'frame': set_tensor_address: refused"):
        context.set_address("frame", 4096)
    with pytest.raises(BackendError, match="could not run the engine: execute_async_v3: refused"):
        context.enqueue(7)


def test_a_warning_with_every_frame_fills_no_memory() -> None:
    logger = make_logger(FakeTrt("10.3.0"))
    logger.log(1, "first")
    for _ in range(2000):
        logger.log(2, "slow")
    assert len(logger.messages) <= 500
    logger.log(1, "last")
    assert logger.last_error() == "last"


# ---- TensorRT-RTX compiles kernels on the GPU, and they are kept -----------------------------------------------------


def test_compiled_kernels_are_kept_and_handed_to_the_next_start(tmp_path: Path) -> None:
    for start in range(2):
        trt = FakeTrt(RTX)
        engine = open_engine(trt, RTX, store(tmp_path))
        engine.new_context().close()
        (config,) = trt._configs
        # Or a CUDA graph would be captured from the kernels for any size, which are slower.
        assert config.dynamic_shapes_kernel_specialization_strategy == "EAGER"
        assert "cache set" in trt._log
        assert (f"kernels {trt._kernels!r}" in trt._log) == (start == 1)
        engine.close()
        assert store(tmp_path).read() == trt._kernels


def test_kernels_are_written_only_when_they_changed(tmp_path: Path) -> None:
    trt, kept = FakeTrt(RTX), store(tmp_path)
    kept.write(trt._kernels)
    written = kept.path.stat().st_mtime_ns
    for kernels in (trt._kernels, b"more"):
        trt._kernels = kernels
        engine = open_engine(trt, RTX, kept)
        engine.new_context().close()
        engine.close()
        assert (kept.path.stat().st_mtime_ns == written) == (kernels != b"more")


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c[:40] + b"x" + c[41:], lambda c: b"", lambda c: b"abc"]
)
def test_damaged_kernels_never_reach_tensorrt(tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    kept = store(tmp_path)
    kept.write(b"compiled for this GPU")
    kept.path.write_bytes(damage(kept.path.read_bytes()))
    trt = FakeTrt(RTX)
    engine = open_engine(trt, RTX, store(tmp_path))
    engine.new_context()
    assert not [call for call in trt._log if call.startswith("kernels")]
    assert "is damaged: the kernels are compiled again" in caplog.text
    engine.close()
    assert store(tmp_path).read() == trt._kernels


def test_kernels_that_tensorrt_refuses_are_compiled_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store(tmp_path).write(b"of an older driver")
    trt = FakeTrt(RTX)
    trt._refuses.add("kernels")
    engine = open_engine(trt, RTX, store(tmp_path))
    engine.new_context()
    assert "TensorRT-RTX refuses" in caplog.text
    engine.close()
    assert store(tmp_path).read() == trt._kernels


def test_kernels_that_cannot_be_kept_are_said_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    KernelStore(tmp_path / "file" / "kernels.cache").write(b"kernels")
    assert "could not be written" in caplog.text


def test_each_engine_and_machine_has_kernels_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path))

    def path(plan: bytes = b"plan", version: str = "1.7.1", **changes: Any) -> Path:
        machine = driver(**changes)
        return kernel_store(plan, Toolkit("tensorrt-rtx", FakeTrt(RTX), version), machine).path

    assert path() == path()
    assert path().parent == tmp_path
    others = [path(b"other"), path(version="1.8.0"), path(name="RTX 4090", capability=(8, 9)), path(cuda=(13, 1))]
    assert len({path(), *others}) == 5


def test_what_cannot_be_captured_is_said() -> None:
    trt = FakeTrt(RTX)
    trt._capturable = False
    assert not open_engine(trt, RTX).new_context().capturable(7)
