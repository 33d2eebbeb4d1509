"""From a model file to frames: NVIDIA's builder makes the engines, the fake device runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_machines import SIZES, driver
from fake_cuda import FakeCuda
from fake_engine import FakeEngine
from numpy.typing import NDArray
from standin import card_of, expected, save_model

import derain
from derain.errors import BackendError, FrameError, ModelFileError, UsageError
from derain.runtime.backends import choose, tensorrt_gpu
from derain.runtime.backends.engine_api import PlanError
from derain.runtime.bench.report import split
from derain.runtime.bench.subject import Spec, Subject
from derain.runtime.device import load_on_device, stream_handle
from derain.runtime.engine import store
from derain.runtime.engine.kernels import KernelStore
from derain.runtime.engine.record import engine_card, read_record, record_path, write_record

rtx = pytest.importorskip("tensorrt_rtx")
pytest.importorskip("cuda.bindings")


def network(frame: NDArray[Any]) -> dict[str, NDArray[Any]]:
    clean = np.stack([expected(picture) for picture in frame])
    return {"derained": clean, "attention": (clean.mean(-1) / 255).astype(np.float32)}


class Machine:
    """A machine with an RTX 3060 whose CUDA is fake: plans are built by NVIDIA's builder and 'run' in NumPy."""

    def __init__(self) -> None:
        self.cuda = FakeCuda()
        self.driver = driver("RTX 3060", (8, 6), (13, 0))
        self.deserialised: list[bytes] = []
        self.made: list[FakeEngine] = []
        self.refuse: list[bytes] = []
        self.function = network

    def engine(self, _toolkit: Any, plan: bytes, kernels: KernelStore | None) -> FakeEngine:
        assert kernels is not None  # it is TensorRT-RTX, which compiles them
        if plan in self.refuse:
            raise PlanError("TensorRT-RTX refuses the engine: version tag does not match")
        assert plan[:4] == b"vtrt"  # a real plan of the real builder
        self.deserialised.append(plan)
        low, high = (1, 16, 16), (1, 96, 128)
        self.made.append(FakeEngine(self.cuda, self.function, smallest=low, largest=high))
        return self.made[-1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tensorrt_gpu, "probe_driver", lambda: made.driver)
    monkeypatch.setattr(tensorrt_gpu, "import_runtime", lambda: None)
    monkeypatch.setattr(tensorrt_gpu, "CudaPython", lambda: made.cuda)
    monkeypatch.setattr(tensorrt_gpu, "TensorRtEngine", made.engine)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_model(tmp_path / "edge.onnx", card=card_of(profile=SIZES))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    real = store.build_plan

    def counting(*arguments: Any, **options: Any) -> Any:
        counted.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(store, "build_plan", counting)
    return counted


def frame(height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_model_builds_its_engine_once_tests_it_and_derains(
    machine: Machine, path: Path, builds: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with derain.load(path, backend="tensorrt-rtx") as model:
            np.testing.assert_array_equal(model(frame()), expected(frame()))
            clean, rain = model(frame(33, 47), attention=True)
            np.testing.assert_array_equal(clean, expected(frame(33, 47)))
            assert rain.shape == (33, 47)
        machine.cuda.require_clean()
    assert len(builds) == 1
    assert "Building the engine of 'edge.onnx'" in caplog.text
    (engine,) = (path.parent / "cache").glob("*.engine")
    test = read_record(engine).self_test
    assert test is not None
    assert test.reference.startswith("ONNX Runtime")


def test_a_benchmark_tells_copies_from_inference(machine: Machine, path: Path) -> None:
    spec = Spec("edge", path, card_of(profile=SIZES), "tensorrt-rtx", "", None, 64, 48)
    with Subject(spec) as subject:
        subject.open()
        timings, steps = [subject.run()], [subject.run_steps() for _ in range(3)]
        assert subject.run().inference  # and goes on as before
    told = [found for found in steps if found is not None]
    assert len(told) == 3
    found = split(spec, timings, told)
    for step, name in ((found.copy_in, "copy_in"), (found.inference, "inference"), (found.copy_out, "copy_out")):
        assert step.median == pytest.approx(1e3 * np.median([getattr(one, name) for one in told]))
        assert "waited for" in step.note
    assert found.pre.median is not None
    unsplit = split(spec, timings)
    assert unsplit.copy_in.median is None
    assert unsplit.inference.note == "the graph, with copies"


def test_an_engine_is_loaded_by_itself_tested_once_and_keeps_its_sizes(
    machine: Machine, path: Path, builds: list[int]
) -> None:
    with derain.load(path, backend="tensorrt-rtx"):
        pass
    (cached,) = (path.parent / "cache").glob("*.engine")
    engine = path.parent / "moved.engine"
    cached.rename(engine)
    record_path(cached).rename(record_path(engine))
    with derain.load(engine, backend="tensorrt-rtx") as model:
        assert model.card == engine_card(engine)
        np.testing.assert_array_equal(model(frame()), expected(frame()))
    assert len(builds) == 1


def test_an_engine_of_trtexec_is_tested_when_it_is_first_opened(
    machine: Machine, path: Path, builds: list[int]
) -> None:
    with derain.load(path, backend="tensorrt-rtx"):
        pass
    (cached,) = (path.parent / "cache").glob("*.engine")
    engine = path.parent / "edge.trt"
    cached.rename(engine)
    ours = read_record(cached)
    changes = {"key": None, "made_by": "trtexec", "card": None, "self_test": None}
    write_record(engine, ours.model_copy(update={**changes, "toolkit": f"tensorrt-rtx {rtx.__version__}"}))
    with derain.load(engine, backend="tensorrt-rtx") as model:  # its card is the model's
        np.testing.assert_array_equal(model(frame()), expected(frame()))
    assert read_record(engine).self_test is not None
    assert len(builds) == 1


def test_an_engine_beside_the_model_is_used_and_a_damaged_one_is_healed(
    machine: Machine, path: Path, builds: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with derain.load(path, backend="tensorrt-rtx"):
        pass
    (cached,) = (path.parent / "cache").glob("*.engine")
    beside = path.with_suffix(".engine")
    cached.rename(beside)
    record_path(cached).rename(record_path(beside))
    with derain.load(path, backend="tensorrt-rtx"):
        assert len(builds) == 1
    content = bytearray(beside.read_bytes())
    content[5000] ^= 4
    beside.write_bytes(content)
    machine.deserialised.clear()
    for name in (path, beside):  # by the model's name, and by the engine's own
        with derain.load(name, backend="tensorrt-rtx") as model:
            np.testing.assert_array_equal(model(frame()), expected(frame()))
    assert len(builds) == 2
    assert bytes(content) not in machine.deserialised
    assert "another checksum" in caplog.text


def test_an_engine_of_trtexec_beside_a_model_that_was_trained_on_is_not_used(
    machine: Machine, path: Path, builds: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with derain.load(path, backend="tensorrt-rtx"):
        pass
    (cached,) = (path.parent / "cache").glob("*.engine")
    beside = path.with_suffix(".engine")
    cached.rename(beside)
    ours = read_record(cached)
    changes = {"key": None, "made_by": "trtexec", "onnx_sha256": ours.model_sha256}
    write_record(beside, ours.model_copy(update={**changes, "toolkit": f"tensorrt-rtx {rtx.__version__}"}))
    with derain.load(path, backend="tensorrt-rtx"):
        assert len(builds) == 1
    save_model(path, blur=False, card=card_of(profile=SIZES))
    machine.function = lambda values: {
        "derained": np.round(values * np.array([1, 1, 0.75])).astype(np.uint8),
        "attention": (np.round(values * np.array([1, 1, 0.75])).mean(-1) / 255).astype(np.float32),
    }
    with derain.load(path, backend="tensorrt-rtx"):
        assert len(builds) == 2
    assert "was built from another model file" in caplog.text


def test_an_engine_of_another_gpu_without_its_model_is_an_error(machine: Machine, path: Path) -> None:
    with derain.load(path, backend="tensorrt-rtx"):
        pass
    (cached,) = (path.parent / "cache").glob("*.engine")
    machine.driver = driver("RTX 4090", (8, 9))
    with pytest.raises(ModelFileError, match=r"does not fit this machine.*SM86, and RTX 4090 is SM89"):
        derain.load(cached, backend="tensorrt-rtx")


def test_a_plan_that_tensorrt_refuses_is_built_again(
    machine: Machine,
    path: Path,
    builds: list[int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with derain.load(path, backend="tensorrt-rtx"):
        pass
    real, refused = machine.engine, [True]

    def once(toolkit: Any, plan: bytes, kernels: KernelStore | None) -> FakeEngine:
        if refused:
            refused.pop()
            raise PlanError("TensorRT-RTX refuses the engine: version tag does not match")
        return real(toolkit, plan, kernels)

    monkeypatch.setattr(tensorrt_gpu, "TensorRtEngine", once)
    with derain.load(path, backend="tensorrt-rtx") as model:
        np.testing.assert_array_equal(model(frame()), expected(frame()))
    assert len(builds) == 2
    assert "version tag does not match" in caplog.text
    machine.cuda.require_clean()


def test_an_engine_that_computes_something_else_is_refused(machine: Machine, path: Path) -> None:
    machine.function = lambda values: {"derained": values, "attention": values.mean(-1).astype(np.float32) / 255}
    with pytest.raises(BackendError, match=r"'derained' is .* dB.*was not kept"):
        derain.load(path, backend="tensorrt-rtx")
    assert not list((path.parent / "cache").glob("*.engine"))
    machine.cuda.require_clean()


@pytest.mark.parametrize("call", ["create_stream", "allocate", "create_event", "allocate_host"])
def test_an_open_that_fails_leaves_nothing(machine: Machine, path: Path, call: str) -> None:
    with derain.load(path, backend="tensorrt-rtx"):
        pass
    machine.cuda.fail(call, "cudaErrorMemoryAllocation")
    with (
        pytest.raises(BackendError, match=r"not enough memory|cudaErrorMemoryAllocation"),
        derain.load(path, backend="tensorrt-rtx") as model,
    ):
        model(frame())
    machine.cuda.require_clean()


def test_frames_in_flight_through_the_backend(machine: Machine, path: Path) -> None:
    backend = tensorrt_gpu.TensorRtRtx(path, card_of(profile=SIZES))
    with backend:
        tickets = [backend.submit({"frame": frame(seed=seed)[None]}) for seed in range(3)]
        for seed, ticket in enumerate(tickets):
            outputs = {
                "derained": np.empty((1, 48, 64, 3), np.uint8),
                "attention": np.empty((1, 48, 64), np.float32),
            }
            backend.collect(ticket, outputs)
            np.testing.assert_array_equal(outputs["derained"][0], expected(frame(seed=seed)))
    with pytest.raises(BackendError, match="closed"):
        backend.submit({"frame": frame()[None]})


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Side by side: each is at work before the first one ends."""
    problems: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            together.wait(30)
            work(number)
            together.wait(30)
        except BaseException as error:
            problems.append(error)
            together.abort()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize(("threads", "contexts"), [(1, 1), (3, 3), (6, 4)])
def test_threads_have_contexts_of_their_own_up_to_four(
    machine: Machine, path: Path, threads: int, contexts: int
) -> None:
    """Sizes differ from thread to thread, and nobody gets another one's picture."""
    with derain.load(path, backend="tensorrt-rtx") as model:

        def work(number: int) -> None:
            for index in range(5):
                picture = frame(40 + 2 * number, 60, seed=number * 10 + index)
                np.testing.assert_array_equal(model(picture), expected(picture))

        in_threads(threads, work)
        assert machine.made[-1].contexts == contexts
        in_threads(threads, work)  # new threads, which take what the first ones left
        assert machine.made[-1].contexts == contexts
    machine.cuda.require_clean()


def test_a_thread_for_which_there_is_no_memory_takes_turns(
    machine: Machine, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with derain.load(path, backend="tensorrt-rtx") as model:
        model(frame())
        machine.cuda.fail("create_stream", "cudaErrorMemoryAllocation", 2)

        def work(number: int) -> None:
            np.testing.assert_array_equal(model(frame(seed=number)), expected(frame(seed=number)))

        in_threads(2, work)
        assert machine.made[-1].contexts == 2
        assert "share an execution context" in caplog.text
    machine.cuda.require_clean()


def test_a_frame_is_collected_by_another_thread_than_submitted_it(machine: Machine, path: Path) -> None:
    with tensorrt_gpu.TensorRtRtx(path, card_of(profile=SIZES)) as backend:
        assert isinstance(backend, tensorrt_gpu.TensorRtRtx)
        ticket = backend.submit({"frame": frame()[None]})
        outputs = {"derained": np.empty((1, 48, 64, 3), np.uint8), "attention": np.empty((1, 48, 64), np.float32)}
        in_threads(1, lambda number: backend.collect(ticket, outputs))
        np.testing.assert_array_equal(outputs["derained"][0], expected(frame()))


def test_auto_takes_the_gpu_where_there_is_one(machine: Machine) -> None:
    chosen, reason = choose("auto", card_of())
    assert chosen.name == "tensorrt-rtx"
    assert reason == "auto: TensorRT-RTX and a GPU are here"


def test_without_a_gpu_an_engine_says_so_and_a_model_runs_on_the_cpu() -> None:
    with pytest.raises(BackendError, match=r"needs an NVIDIA GPU.*\.onnx file, which also runs without"):
        choose("auto", card_of(), engine=True)
    assert choose("auto", card_of())[0].name in ("openvino", "onnxruntime", "native")
    with pytest.raises(BackendError, match="needs an NVIDIA GPU, and there is no NVIDIA driver here"):
        choose("tensorrt-rtx", card_of())


# ---- frames on the GPU ----------------------------------------------------------------------------------------------


class CupyLike:
    def __init__(self, cuda: FakeCuda, values: NDArray[Any]) -> None:
        with cuda.current():
            self.address = cuda.application_array(values)
        self.__cuda_array_interface__ = {
            "data": (self.address, False),
            "shape": values.shape,
            "typestr": values.dtype.str,
            "version": 3,
        }


class CupyStream:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


def test_a_frame_on_the_gpu_stays_there(machine: Machine, path: Path) -> None:
    cuda = machine.cuda
    with cuda.current():
        stream = cuda.create_stream()
    picture = CupyLike(cuda, frame())
    out = CupyLike(cuda, np.zeros((48, 64, 3), np.uint8))
    floats, small = CupyLike(cuda, frame().astype(np.float32)), CupyLike(cuda, np.zeros((40, 64, 3), np.uint8))
    model = load_on_device(path, "tensorrt-rtx", cuda)
    copies = cuda.copies
    clean, rain = model(picture, stream=CupyStream(stream))
    mine, _ = model(picture, stream=stream, out=out)
    assert cuda.copies == copies
    with cuda.current():
        cuda.synchronize(stream)
    for address in (clean.__cuda_array_interface__["data"][0], out.address):
        np.testing.assert_array_equal(cuda.content(address, "uint8", (48, 64, 3)), expected(frame()))
    assert mine.address == out.address
    assert rain.shape == (48, 64)
    assert clean.__cuda_array_interface__["stream"] == stream
    with pytest.raises(FrameError, match=r"is float32 \(48, 64, 3\)\. Expected uint8 \(H, W, 3\)"):
        model(floats)
    with pytest.raises(FrameError, match="of 48 x 64 rows and columns"):
        model(picture, out=small)
    model.close()
    with cuda.current():
        for array in (picture, out, floats, small):
            cuda.free(array.address)
        cuda.destroy_stream(stream)
    cuda.require_clean()


def test_streams_of_every_library() -> None:
    class Torch:
        cuda_stream = 7

    class PyCuda:
        handle = 8

    class Protocol:
        def __cuda_stream__(self) -> tuple[int, int]:
            return (0, 9)

    assert [stream_handle(s) for s in (None, 5, CupyStream(6), Torch(), PyCuda(), Protocol())] == [0, 5, 6, 7, 8, 9]
    with pytest.raises(UsageError, match="A str is no CUDA stream"):
        stream_handle("x")


def test_only_engines_work_on_gpu_memory(path: Path) -> None:
    with pytest.raises(UsageError, match="does not work on GPU memory"):
        load_on_device(path, "onnxruntime")
