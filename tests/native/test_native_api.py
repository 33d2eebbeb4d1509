"""The C API: errors that say what to do, the queue, in-place frames, strength and overlay, logs and statistics."""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_void_p
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from native_client import FORMATS, Client, Image

from derain.card import Profile
from derain.errors import BackendError, DerainError, FrameError, ModelFileError
from derain.runtime.backends import native_library as native

FULL, EMPTY, TIMEOUT = 6, 7, 8
LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, c_void_p)


def noise(library: ctypes.CDLL, seed: int, width: int = 40, height: int = 30) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image(library, "bgr", width, height).fill([pixels])


def test_info_and_card(library: ctypes.CDLL, model_path: Path, standin: ModuleType) -> None:
    with Client(library, model_path, threads=1) as client:
        info = native.Info()
        library.derain_info_init(byref(info))
        native.check(library, library.derain_get_info(client.handle, byref(info)))
        assert info.name == b"standin"
        assert info.threads == 1
        assert info.backend == b"openvino"
        assert b"OpenVINO" in info.device
        assert info.card.decode() == standin.card_of().to_json()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": b"cuda"}, "no backend 'cuda'.*openvino"),
        ({"threads": -1}, "threads is -1"),
        ({"slots": 17}, "slots is 17.*0 to 16"),
    ],
)
def test_wrong_options(library: ctypes.CDLL, model_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DerainError, match=message):
        Client(library, model_path, **options)


def test_files_that_are_no_model(library: ctypes.CDLL, model_path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    whole = model_path.read_bytes()
    for content, message in ((b"", "empty"), (b"GIF89a", "not a whole ONNX"), (whole[: len(whole) // 2], "ONNX")):
        damaged.write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            Client(library, damaged)
    with pytest.raises(ModelFileError, match="cannot be opened"):
        Client(library, tmp_path / "absent.onnx")
    with pytest.raises(ModelFileError, match="not a file"):
        Client(library, tmp_path)


def test_card_that_contradicts_its_graph(library: ctypes.CDLL, standin: ModuleType, tmp_path: Path) -> None:
    ports = [port.model_copy(update={"dtype": "uint8"}) for port in standin.card_of("float").inputs]
    card = standin.card_of(inputs=ports, outputs=standin.card_of("float").outputs)
    path = standin.save_model(tmp_path / "liar.onnx", "uint8", card=card)
    with pytest.raises(ModelFileError, match="as its card declares"):
        Client(library, path)


def test_graph_that_the_engine_refuses(library: ctypes.CDLL, model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "refused.onnx"
    path.write_bytes(model_path.read_bytes().replace(b"ReduceMean", b"ReduceMuch"))
    with pytest.raises(BackendError, match=r"OpenVINO .* cannot load .*refused\.onnx"):
        Client(library, path)


def test_sizes_the_model_does_not_take(library: ctypes.CDLL, standin: ModuleType, tmp_path: Path) -> None:
    card = standin.card_of()
    small = card.model_copy(update={"geometry": card.geometry.model_copy(update={"minimum": 16})})
    path = standin.save_model(tmp_path / "small.onnx", card=small)
    with Client(library, path) as client, pytest.raises(FrameError, match=r"40 x 15 pixels.*at least 16 x 16"):
        client.run(noise(library, 0, 40, 15), noise(library, 0, 40, 15))
    size = (1, 30, 40)
    fixed = standin.card_of(profile=Profile(min=size, opt=size, max=size))
    with Client(library, standin.save_model(tmp_path / "fixed.onnx", card=fixed)) as client:
        client.run(noise(library, 0), noise(library, 1))
        with pytest.raises(FrameError, match=r"41 x 30 pixels.*40 x 30, for which"):
            client.run(noise(library, 0, 41, 30), noise(library, 0, 41, 30))
        with pytest.raises(FrameError, match=r"clean frame has 40 x 31.*as the rainy one"):
            client.run(noise(library, 0), noise(library, 0, 40, 31))


def test_wrong_requests(library: ctypes.CDLL, model_path: Path) -> None:
    rain = np.zeros((30, 40), np.float32)
    with Client(library, model_path) as client:
        for fields in ({"strength": 1.5}, {"strength": float("nan")}, {"overlay": -0.1}):
            with pytest.raises(BackendError, match="0 to 1 for each"):
                client.run(noise(library, 0), noise(library, 1), **fields)
        with pytest.raises(FrameError, match="rain_stride is 8"):
            client.run(noise(library, 0), noise(library, 1), rain, rain_stride=8)
        request = native.Request()
        with pytest.raises(BackendError, match="derain_request_default"):
            native.check(library, library.derain_run_request(client.handle, byref(request)))


@pytest.mark.parametrize("name", FORMATS)
def test_in_place(library: ctypes.CDLL, model_path: Path, name: str) -> None:
    width, height = 21, 17
    random = np.random.default_rng(9)
    frame, apart = Image(library, name, width, height, gap=3), Image(library, name, width, height, gap=3)
    for plane in frame.planes:
        plane[...] = random.integers(0, 256, plane.shape, np.uint8)
    with Client(library, model_path) as client:
        for fields in ({}, {"strength": 0.5}):
            client.run(frame, apart, **fields)
            client.run(frame, frame, **fields)
            for found, wanted in zip(frame.planes, apart.planes, strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_strength_and_overlay(library: ctypes.CDLL, model_path: Path) -> None:
    rainy, clean, mixed = noise(library, 2), noise(library, 3), noise(library, 4)
    rain = np.zeros((30, 48), np.float32)[:, :40]  # rows with a gap
    with Client(library, model_path) as client:
        client.run(rainy, clean, rain)
        assert rain.max() > 0.3
        client.run(rainy, mixed, strength=0.25)
        expected = rainy.planes[0] + 0.25 * (clean.planes[0].astype(float) - rainy.planes[0])
        assert np.abs(mixed.planes[0] - expected).max() <= 0.5 + 1e-3
        client.run(rainy, mixed, overlay=1)
        painted = clean.planes[0] + rain[..., None] * (np.array([0, 0, 255]) - clean.planes[0].astype(float))
        assert np.abs(mixed.planes[0] - painted).max() <= 0.5 + 1e-3


def test_queue_keeps_order_and_bounds(library: ctypes.CDLL, model_path: Path) -> None:
    with Client(library, model_path, slots=3) as client:
        back = c_void_p()
        assert library.derain_collect(client.handle, 0, byref(back)) == EMPTY
        pairs = []
        for index in range(3):
            rainy, clean = noise(library, index), noise(library, 100)
            rainy.struct.timestamp = 1000 + index
            pairs.append((rainy, clean))
            request = client.request(rainy, clean, user_data=index + 1)
            native.check(library, library.derain_submit(client.handle, byref(request)))
        assert library.derain_submit(client.handle, byref(request)) == FULL
        assert b"derain_collect" in library.derain_last_error()
        for index, (rainy, clean) in enumerate(pairs):
            while (status := library.derain_collect(client.handle, 5, byref(back))) == TIMEOUT:
                pass
            native.check(library, status)
            assert back.value == index + 1
            assert clean.struct.timestamp == 1000 + index
            again = noise(library, 200)
            client.run(rainy, again)
            np.testing.assert_array_equal(clean.planes[0], again.planes[0])
        assert library.derain_collect(client.handle, -1, byref(back)) == EMPTY
        assert back.value is None


def test_failed_frame_is_collected_with_its_error(library: ctypes.CDLL, model_path: Path) -> None:
    with Client(library, model_path) as client:
        request = client.request(noise(library, 0), noise(library, 1), strength=7.0, user_data=5)
        native.check(library, library.derain_submit(client.handle, byref(request)))
        back = c_void_p()
        with pytest.raises(BackendError, match="strength 7"):
            native.check(library, library.derain_collect(client.handle, -1, byref(back)))
        assert back.value == 5


def test_close_with_frames_in_the_queue(library: ctypes.CDLL, model_path: Path) -> None:
    frames = [(noise(library, seed, 300, 200), noise(library, seed, 300, 200)) for seed in range(8)]
    with Client(library, model_path, slots=8) as client:
        for rainy, clean in frames:
            request = client.request(rainy, clean)
            native.check(library, library.derain_submit(client.handle, byref(request)))


def test_many_threads_and_sizes(library: ctypes.CDLL, model_path: Path) -> None:
    sizes = [(40, 30), (17, 9), (64, 5)]
    with Client(library, model_path, threads=1) as client:
        expected = {}
        for width, height in sizes:
            clean = noise(library, 1, width, height)
            client.run(noise(library, 0, width, height), clean)
            expected[width, height] = clean.planes[0].copy()
        wrong: list[str] = []

        def work(shift: int) -> None:
            for step in range(12):
                width, height = sizes[(step + shift) % 3]
                clean = noise(library, 1, width, height)
                client.run(noise(library, 0, width, height), clean)
                if not np.array_equal(clean.planes[0], expected[width, height]):
                    wrong.append(f"{width} x {height}")

        threads = [threading.Thread(target=work, args=(shift,)) for shift in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_errors_belong_to_their_thread(library: ctypes.CDLL, tmp_path: Path) -> None:
    handle = c_void_p()
    library.derain_open(str(tmp_path / "mine.onnx").encode(), None, byref(handle))
    other: list[bytes] = []
    thread = threading.Thread(target=lambda: other.append(library.derain_last_error()))
    thread.start()
    thread.join()
    assert other == [b""]
    assert b"mine.onnx" in library.derain_last_error()


def test_log_and_statistics(library: ctypes.CDLL, model_path: Path) -> None:
    lines: list[tuple[int, bytes]] = []
    callback = LOG(lambda level, message, _: lines.append((level, message)))
    with Client(library, model_path, log=ctypes.cast(callback, c_void_p)) as client:
        for seed in range(3):
            client.run(noise(library, seed), noise(library, seed))
        statistics = native.Statistics()
        library.derain_statistics_init(byref(statistics))
        native.check(library, library.derain_get_statistics(client.handle, byref(statistics)))
    assert statistics.frames == 3
    assert 0 < statistics.inference_seconds <= statistics.seconds
    assert len(lines) == 1
    assert b"Opened" in lines[0][1]


def test_structures_of_a_newer_header(library: ctypes.CDLL, model_path: Path) -> None:
    """The library fills what it knows, and leaves alone what was appended later."""

    class Newer(ctypes.Structure):
        _fields_ = (("known", native.Info), ("appended", ctypes.c_uint64))

    with Client(library, model_path) as client:
        info = Newer(appended=77)
        library.derain_info_init(byref(info.known))
        info.known.struct_size = ctypes.sizeof(Newer)
        native.check(library, library.derain_get_info(client.handle, byref(info.known)))
        assert (info.known.name, info.appended, info.known.struct_size) == (b"standin", 77, ctypes.sizeof(Newer))


def test_structures_whose_size_was_never_set(library: ctypes.CDLL, model_path: Path) -> None:
    with Client(library, model_path) as client:
        info = native.Info()
        info.struct_size = 8
        with pytest.raises(BackendError, match="derain_info_init"):
            native.check(library, library.derain_get_info(client.handle, byref(info)))
