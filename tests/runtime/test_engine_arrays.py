"""Device arrays through the runner, in the order of the caller's stream, against the honest fake device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda import DeviceFaultError, FakeCuda
from fake_engine import FakeEngine, negative
from numpy.typing import NDArray

from derain.errors import BackendError, FrameError
from derain.runtime.backends.device_array import DeviceArray, take
from derain.runtime.backends.device_runner import DeviceRunner


def frame(seed: int, height: int = 8, width: int = 12) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)


class Foreign:
    """An array of another library: it has the CUDA array interface and nothing else."""

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: str, strides: Any = None, stream: int | None = None
    ) -> None:
        typestr = np.dtype(dtype).str
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": typestr,
            "strides": strides,
            "version": 3,
            "stream": stream,
        }


def test_device_arrays_run_in_the_order_of_the_callers_stream() -> None:
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    picture = frame(4)
    with cuda.current():
        stream = cuda.create_stream()
        source = cuda.application_array(np.zeros_like(picture))
        clean = cuda.application_array(np.zeros_like(picture))
        rain = cuda.application_array(np.zeros(picture.shape[:3], np.float32))
        # The application's own work fills the input, and reads the output, in its stream.
        view = cuda._bytes(source, picture.nbytes)
        cuda.queue(stream, "camera", lambda: np.copyto(view, picture.reshape(-1)), writes=[(source, picture.nbytes)])
    inputs = {"frame": DeviceArray(source, picture.shape, np.dtype(np.uint8), None)}
    outputs = {
        "derained": DeviceArray(clean, picture.shape, np.dtype(np.uint8), None),
        "attention": DeviceArray(rain, picture.shape[:3], np.dtype(np.float32), None),
    }
    cuda.calls.clear()
    runner.run_arrays(inputs, outputs, stream)
    assert "synchronize" not in cuda.calls[1:] or cuda.calls.count("synchronize") <= 3  # only for the new shape
    seen = []
    with cuda.current():
        result = cuda._bytes(clean, picture.nbytes)
        cuda.queue(stream, "display", lambda: seen.append(result.copy()), reads=[(clean, picture.nbytes)])
        cuda.synchronize(stream)
    np.testing.assert_array_equal(seen[0].reshape(picture.shape), negative(picture)["derained"])
    assert cuda.executed == ["camera", "compute", "display"]
    cuda.calls.clear()
    runner.run_arrays(inputs, outputs, stream)
    assert not {"synchronize", "synchronize_event", "allocate", "copy_in", "copy_out"} & set(cuda.calls)


@pytest.mark.parametrize("dropped", range(2))
def test_device_arrays_without_either_wait_are_a_race(monkeypatch: pytest.MonkeyPatch, dropped: int) -> None:
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    picture = frame(4)
    with cuda.current():
        stream = cuda.create_stream()
        addresses = [cuda.application_array(np.zeros(picture.size * 4, np.uint8)) for _ in range(3)]
        cuda.queue(stream, "camera", lambda: None, writes=[(addresses[0], picture.nbytes)])
    arrays = [DeviceArray(address, picture.shape, np.dtype(np.uint8), None) for address in addresses]
    rain = DeviceArray(addresses[2], picture.shape[:3], np.dtype(np.float32), None)
    real, count = cuda.wait, iter(range(99))
    monkeypatch.setattr(cuda, "wait", lambda stream, event: real(stream, event) if next(count) != dropped else None)
    with pytest.raises(DeviceFaultError, match="race"):  # noqa: PT012
        runner.run_arrays({"frame": arrays[0]}, {"derained": arrays[1], "attention": rain}, stream)
        with cuda.current():
            cuda.queue(stream, "display", lambda: None, reads=[(addresses[1], picture.nbytes)])


def _on_another_stream(waits: bool) -> FakeCuda:
    """A frame that a camera's stream writes, derained in the application's; ``waits``: the array names that stream."""
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    picture = frame(4)
    with cuda.current():
        camera, stream = cuda.create_stream(), cuda.create_stream()
        source, clean, rain = (cuda.application_array(np.zeros(picture.size * 4, np.uint8)) for _ in range(3))
        view = cuda._bytes(source, picture.nbytes)
        cuda.queue(camera, "camera", lambda: np.copyto(view, picture.reshape(-1)), writes=[(source, picture.nbytes)])
    given = take(Foreign(source, picture.shape, "uint8", stream=camera if waits else None), stream)
    outputs = {
        "derained": DeviceArray(clean, picture.shape, np.dtype(np.uint8), None),
        "attention": DeviceArray(rain, picture.shape[:3], np.dtype(np.float32), None),
    }
    runner.run_arrays({"frame": given}, outputs, stream)
    with cuda.current():
        cuda.synchronize(stream)
    found = cuda.content(clean, "uint8", picture.shape)
    np.testing.assert_array_equal(found, negative(picture)["derained"])
    return cuda


def test_the_stream_that_an_array_names_is_waited_for() -> None:
    assert "camera" in _on_another_stream(waits=True).executed
    with pytest.raises(DeviceFaultError, match="race"):
        _on_another_stream(waits=False)


@pytest.mark.parametrize(("later", "waits"), [("consumer", True), (-1, False), (None, True), ("own", False)])
def test_a_consumer_of_dlpack_sees_the_result(later: Any, waits: bool) -> None:
    """Its stream waits on the GPU; -1 is a consumer that orders its work by itself, None the default stream."""
    cuda = FakeCuda()
    with cuda.current():
        own, consumer = cuda.create_stream(), cuda.create_stream()
        address = cuda.application_array(np.zeros(8, np.uint8))
        view = cuda._bytes(address, 8)
        cuda.queue(own, "compute", lambda: view.fill(7), writes=[(address, 8)])
    array = DeviceArray(address, (8,), np.dtype(np.uint8), None, stream=own, cuda=cuda)
    stream = {"consumer": consumer, "own": own}.get(later, later)
    cuda.calls.clear()
    array.__dlpack__(stream=stream)
    assert ("wait" in cuda.calls) == waits
    assert cuda.calls.count("create_event") == cuda.calls.count("destroy_event")
    if waits:
        seen: list[int] = []
        with cuda.current():
            reader = stream or 0
            cuda.queue(reader, "read", lambda: seen.append(int(view[0])), reads=[(address, 8)])
            cuda.synchronize(reader)
        assert seen == [7]


def test_no_copy_and_no_other_device_is_pretended() -> None:
    array = DeviceArray(4096, (8,), np.dtype(np.uint8), None)
    for wish in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match="without a copy"):
            array.__dlpack__(**wish)  # type: ignore[arg-type]
    assert array.__dlpack__(dl_device=(2, 0), copy=False, max_version=(1, 0)) is not None


def test_device_arrays_of_a_wrong_type_are_refused() -> None:
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    wrong = DeviceArray(4096, (1, 8, 12, 3), np.dtype(np.float32), None)
    with pytest.raises(BackendError, match=r"'frame' is float32 \(1, 8, 12, 3\). Expected uint8"):
        runner.run_arrays({"frame": wrong}, {}, 0)


def test_take_refuses_what_is_not_on_the_gpu() -> None:
    with pytest.raises(FrameError, match="DLPack device type 1"):
        take(np.zeros(3), 0)
    with pytest.raises(FrameError, match="A list is no device array"):
        take([1], 0)
    with pytest.raises(FrameError, match=r"strides \(48, 3, 1\)"):
        take(Foreign(64, (4, 8, 3), "uint8", (48, 3, 1)), 0)
    fine = take(Foreign(64, (1, 8, 3), "uint8", (999, 3, 1)), 0)
    assert (fine.address, fine.shape, fine.nbytes) == (64, (1, 8, 3), 24)
