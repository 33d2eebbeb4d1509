"""On a real GPU: build, self-test, run, overlap, graphs, device arrays, and the figures that are reported nowhere yet.

    python -m pytest tests/gpu -s

prints the device, and for each test what was measured. Nothing here has been run on hardware so far.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from standin import card_of, expected, save_model

import derain
from derain.card import Profile
from derain.errors import ModelFileError
from derain.models import shipped
from derain.runtime.backends import available
from derain.runtime.backends.cuda_python import CudaPython
from derain.runtime.backends.tensorrt_gpu import EngineBackend
from derain.runtime.device import load_on_device
from derain.runtime.engine.record import read_record

SIZES = Profile(min=(1, 64, 64), opt=(1, 480, 640), max=(1, 1080, 1920))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    return save_model(tmp_path / "edge.onnx", card=card_of(profile=SIZES))


def frame(height: int = 480, width: int = 640, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def close(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> bool:
    return int(np.abs(found.astype(int) - wanted).max()) <= 1


def test_build_self_test_and_frames_of_changing_size(engine_backend: type[EngineBackend], path: Path) -> None:
    with derain.load(path, backend=engine_backend.name) as model:
        print(f"\n{model.device}")
        for size in ((480, 640), (64, 64), (1080, 1920), (480, 640), (333, 517)):
            for seed in range(4):  # the first runs plainly, the next are captured and replayed
                assert close(model(frame(*size, seed)), expected(frame(*size, seed)))
    (engine,) = (path.parent / "cache").glob("*.engine")
    print(read_record(engine).self_test)


def test_a_damaged_engine_is_noticed(engine_backend: type[EngineBackend], path: Path) -> None:
    derain.load(path, backend=engine_backend.name).close()
    (engine,) = (path.parent / "cache").glob("*.engine")
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="cut short"):
        derain.load(engine, backend=engine_backend.name)
    derain.load(path, backend=engine_backend.name).close()


def test_frames_in_flight_overlap(engine_backend: type[EngineBackend], path: Path) -> None:
    """Three slots give the same pictures as one at a time, and are reported with their gain."""
    card = card_of(profile=SIZES)
    pictures = [frame(1080, 1920, seed)[None] for seed in range(4)]

    def room() -> dict[str, NDArray[Any]]:
        return {"derained": np.empty((1, 1080, 1920, 3), np.uint8), "attention": np.empty((1, 1080, 1920), np.float32)}

    with engine_backend(path, card) as backend:
        assert isinstance(backend, EngineBackend)
        outputs = [room() for _ in range(3)]
        for turn in range(2):
            begin = time.perf_counter()
            for index in range(100):
                backend.infer({"frame": pictures[index % 4]}, outputs[0])
            alone = time.perf_counter() - begin
            begin = time.perf_counter()
            flying = [backend.submit({"frame": pictures[index % 4]}) for index in range(3)]
            for index in range(100):
                backend.collect(flying.pop(0), outputs[index % 3])
                assert turn or close(outputs[index % 3]["derained"][0], expected(pictures[index % 4][0]))
                if index < 97:
                    flying.append(backend.submit({"frame": pictures[(index + 3) % 4]}))
            together = time.perf_counter() - begin
        print(
            f"\n1920x1080, copies included: {alone * 10:.2f} ms a frame alone, {together * 10:.2f} ms with 3 in flight"
        )


def test_threads_have_contexts_of_their_own(engine_backend: type[EngineBackend], path: Path) -> None:
    """Each thread's frames are its own, at sizes that differ; what several threads gain is reported."""
    with derain.load(path, backend=engine_backend.name) as model:

        def work(number: int) -> None:
            pictures = [frame(240, 320 + 16 * number, seed) for seed in range(4)]
            for index in range(100):
                assert close(model(pictures[index % 4]), expected(pictures[index % 4]))

        for threads in (1, 4, 4):
            with ThreadPoolExecutor(threads) as pool:
                begin = time.perf_counter()
                for done in [pool.submit(work, number) for number in range(threads)]:
                    done.result()
                spent = time.perf_counter() - begin
            print(f"\n320x240 and wider, checked on the CPU: {threads * 100 / spent:.0f} frames/s of {threads} threads")


def test_memory_does_not_grow(engine_backend: type[EngineBackend], cuda: CudaPython, path: Path) -> None:
    with derain.load(path, backend=engine_backend.name) as model:
        for _ in range(10):
            model(frame())
        before = cuda.free_memory()[0]
        for seed in range(300):
            model(frame(seed=seed % 3))
        assert abs(before - cuda.free_memory()[0]) < 8 << 20


def test_device_arrays_of_torch(engine_backend: type[EngineBackend], path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    stream = torch.cuda.Stream()
    with load_on_device(path, engine_backend.name) as model, torch.cuda.stream(stream):
        for seed in range(3):
            given = torch.from_numpy(frame(seed=seed)).cuda(non_blocking=True)
            clean, rain = model(given, stream=stream)
            seen = torch.as_tensor(clean, device="cuda").clone()
            assert torch.from_dlpack(rain).shape == (480, 640)
            stream.synchronize()
            assert close(seen.cpu().numpy(), expected(frame(seed=seed)))


def test_a_consumer_in_another_stream_sees_the_result(engine_backend: type[EngineBackend], path: Path) -> None:
    """DLPack orders the reader behind the stream of a result: PyTorch reads in its own, without a wait between."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    derains, reads = torch.cuda.Stream(), torch.cuda.Stream()
    with load_on_device(path, engine_backend.name) as model:
        for seed in range(10):
            with torch.cuda.stream(derains):
                given = torch.from_numpy(frame(1080, 1920, seed)).cuda()
            clean, _ = model(given, stream=derains)
            with torch.cuda.stream(reads):
                seen = torch.from_dlpack(clean).clone()
            reads.synchronize()
            assert close(seen.cpu().numpy(), expected(frame(1080, 1920, seed)))
            derains.synchronize()


def test_kernels_of_tensorrt_rtx_are_kept(engine_backend: type[EngineBackend], path: Path) -> None:
    if engine_backend.name != "tensorrt-rtx":
        pytest.skip("only TensorRT-RTX compiles kernels when an engine is used")
    times = []
    for _ in range(3):  # built and compiled; compiled for this size; taken from the cache
        begin = time.perf_counter()
        with derain.load(path, backend=engine_backend.name) as model:
            assert close(model(frame()), expected(frame()))
        times.append(time.perf_counter() - begin)
    (kernels,) = (path.parent / "cache").glob("kernels-*.cache")
    print(
        f"\nfrom load to first frame: {', '.join(f'{t:.2f} s' for t in times)}; kernels {kernels.stat().st_size} bytes"
    )


def test_device_arrays_of_cupy(engine_backend: type[EngineBackend], path: Path) -> None:
    cupy = pytest.importorskip("cupy")
    stream = cupy.cuda.Stream(non_blocking=True)
    with load_on_device(path, engine_backend.name) as model, stream:
        out = cupy.empty((480, 640, 3), cupy.uint8)
        model(cupy.asarray(frame()), stream=stream, out=out)
        stream.synchronize()
        assert close(cupy.asnumpy(out), expected(frame()))


def test_inside_a_pycuda_application(engine_backend: type[EngineBackend], path: Path) -> None:
    pytest.importorskip("pycuda.autoinit")
    from pycuda import driver, gpuarray

    from derain.runtime.backends.pycuda_adapter import to_gpuarray, use_context

    stream = driver.Stream()
    with load_on_device(path, engine_backend.name, cuda=use_context()) as model:
        given = gpuarray.to_gpu_async(frame(), stream=stream)
        clean, _ = model(given, stream=stream)
        result = to_gpuarray(clean).get_async(stream=stream)
        stream.synchronize()
        assert close(result, expected(frame()))


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntimes_providers(cuda: CudaPython, path: Path, backend: str) -> None:
    problem = available()[backend]
    if problem:
        pytest.skip(problem)
    with derain.load(path, backend=backend) as model:
        assert close(model(frame()), expected(frame()))


@pytest.mark.parametrize("name", sorted(shipped()) or ["none shipped"])
def test_shipped_models_build_and_their_speed(engine_backend: type[EngineBackend], name: str) -> None:
    if name not in shipped():
        pytest.skip("no model ships with this installation")
    with derain.load(name, backend=engine_backend.name) as model:
        picture = frame(720, 1280)
        times = []
        for _ in range(300):
            begin = time.perf_counter()
            model(picture)
            times.append(1000 * (time.perf_counter() - begin))
        median, worst = np.percentile(times[100:], (50, 99))
        print(f"\n{name}, 1280x720, {model.device}: {median:.2f} ms a frame with copies, p99 {worst:.2f} ms")
