"""DLPack and the CUDA array interface, against NumPy and PyTorch where the memory is the CPU's."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from typing import Any

import numpy as np
import pytest

from derain.errors import BackendError, FrameError, MissingDependencyError
from derain.runtime.backends import dlpack, pycuda_adapter
from derain.runtime.backends.cuda_api import CudaError
from derain.runtime.backends.device_array import DeviceArray, take


class Owner:
    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values


class OnCpu:
    """The same export, of CPU memory, so that NumPy can read it."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner

    def __dlpack__(self, **_: Any) -> Any:
        values = self.owner.values
        return dlpack.export(values.ctypes.data, values.shape, values.dtype, dlpack.CPU, 0, self.owner)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CPU, 0)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_numpy_reads_our_capsules_and_keeps_their_memory(dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    owner = Owner(values)
    alive = weakref.ref(owner)
    seen = np.from_dlpack(OnCpu(owner))
    del owner
    gc.collect()
    np.testing.assert_array_equal(seen, values)
    assert alive() is not None
    del seen
    gc.collect()
    assert alive() is None


def test_a_capsule_that_nobody_takes_gives_its_memory_back() -> None:
    owner = Owner(np.zeros(3, np.uint8))
    alive = weakref.ref(owner)
    capsule = OnCpu(owner).__dlpack__()
    del owner
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


def test_pytorchs_capsules() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
    taken = take(tensor, 0, dlpack.CPU)
    assert (taken.address, taken.shape, taken.dtype) == (tensor.data_ptr(), (3, 4), np.dtype(np.uint8))
    with pytest.raises(FrameError, match=r"has strides .*\.contiguous\(\)"):
        take(tensor.T, 0, dlpack.CPU)
    with pytest.raises(FrameError, match="DLPack device type 1"):
        take(tensor, 0)
    ours = torch.from_dlpack(OnCpu(Owner(np.arange(6, dtype=np.float32))))
    assert ours.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_capsule_is_taken_once() -> None:
    capsule = np.zeros(3).__dlpack__()
    dlpack.take(capsule)
    with pytest.raises(FrameError, match="used before"):
        dlpack.take(capsule)
    with pytest.raises(FrameError, match="or is none"):
        dlpack.take("text")


def test_the_interface_names_its_stream() -> None:
    array = DeviceArray(4096, (2, 3), np.dtype(np.uint8), None, stream=0)
    assert array.__cuda_array_interface__["stream"] == 1  # the protocol forbids 0
    assert array.batched().shape == (1, 2, 3)
    assert array.__dlpack_device__() == (dlpack.CUDA, 0)
    assert take(array, 0) is array


# ---- CUDA's and PyCUDA's real packages, as far as they go without a GPU ----------------------------------------------


def test_every_cuda_call_exists_in_the_bindings() -> None:
    import inspect
    import re

    runtime = pytest.importorskip("cuda.bindings.runtime")
    from derain.runtime.backends import cuda_python

    source = inspect.getsource(cuda_python)
    names = set(re.findall(r'"(cuda[A-Z]\w+)"', source)) | set(re.findall(r"_?runtime\.(cuda\w+)", source))
    assert len(names) > 20
    assert [name for name in sorted(names) if not hasattr(runtime, name)] == []
    codes = {error.name for error in runtime.cudaError_t}
    from derain.runtime.backends.cuda_api import _LOST

    assert codes >= _LOST - {"cudaErrorUnknown"} | {"cudaErrorMemoryAllocation"}


def test_without_a_gpu_cuda_says_so() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    from derain.runtime.backends.cuda_python import CudaPython
    from derain.runtime.engine.driver import probe_driver

    if probe_driver().usable:
        pytest.skip("there is a GPU: see tests/gpu")
    with pytest.raises(BackendError, match="No engine can run: there is no NVIDIA driver"):
        CudaPython()


def test_pycuda_is_asked_for_only_when_used() -> None:
    with pytest.raises((MissingDependencyError, BackendError), match=r"(?i)pycuda"):
        pycuda_adapter.use_context()


def test_a_result_becomes_a_gpuarray_on_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []

    def gpu_array(shape: Any, dtype: Any, *, base: Any, gpudata: int) -> str:
        made.append((shape, dtype, base, gpudata))
        return "array"

    package = types.ModuleType("pycuda")
    package.driver = types.SimpleNamespace(Context=types.SimpleNamespace(get_current=lambda: None))  # type: ignore[attr-defined]
    package.gpuarray = types.SimpleNamespace(GPUArray=gpu_array)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    array = DeviceArray(4096, (2, 3), np.dtype(np.uint8), None)
    assert pycuda_adapter.to_gpuarray(array) == "array"
    assert made == [((2, 3), np.dtype(np.uint8), array, 4096)]
    with pytest.raises(BackendError, match="No PyCUDA context is current"):
        pycuda_adapter.use_context()


def test_a_foreign_context_is_pushed_and_popped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call happens inside the application's context, and the thread gets its own context back."""
    from derain.runtime.backends import cuda_python

    log: list[str] = []

    class Status(int):
        name = "cudaErrorMemoryAllocation"

    class Runtime:
        class cudaDeviceAttr:  # noqa: N801
            cudaDevAttrIntegrated = 18  # noqa: N815

        def __getattr__(self, name: str) -> Any:
            def call(*_: Any) -> Any:
                log.append(name)
                if name == "cudaMalloc":
                    return (Status(2), None)
                if name == "cudaGetErrorString":
                    return (0, b"out of memory")
                return (0, type("Properties", (), {"name": b"GPU\0"}))

            return call

    class Context:
        def push(self) -> None:
            log.append("push")

        def pop(self) -> None:
            log.append("pop")

    monkeypatch.setattr(cuda_python, "import_runtime", Runtime)
    cuda = pycuda_adapter.use_context(Context())
    assert cuda.description == "GPU"
    assert log[0] == "push"
    assert log[-1] == "pop"
    assert "cudaSetDevice" not in log
    with pytest.raises(CudaError, match="out of memory") as caught, cuda.current():
        cuda.allocate(10)
    assert caught.value.out_of_memory
    assert log[-1] == "pop"
