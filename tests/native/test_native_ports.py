"""Models that take NV12, compute on float16 tensors, or give rain maps only."""

from __future__ import annotations

import ctypes
from ctypes import byref
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from native_client import FORMATS, Client, Image, to_bgr, to_planes
from numpy.typing import NDArray
from port_models import painted, save_extractor, save_half, save_nv12

import derain
from derain.errors import BackendError, FrameError
from derain.runtime.backends import native_library as native

WIDTH, HEIGHT = 46, 34


def backends(library: ctypes.CDLL) -> list[bytes]:
    """The CPU backends of this build."""
    names = [library.derain_backend_name(index) for index in range(4)]
    return [name for name in names if name not in (None, b"tensorrt")]


def planes_of(seed: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    shapes = [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2, 2)]
    return [random.integers(0, 256, shape, np.uint8) for shape in shapes]


@pytest.mark.parametrize("gap", [0, 6])
def test_nv12_frames_reach_an_nv12_model_as_they_are(
    library: ctypes.CDLL, standin: ModuleType, tmp_path: Path, gap: int
) -> None:
    path, planes = save_nv12(standin, tmp_path / "model.onnx"), planes_of(1)
    bt709 = 2
    for backend in backends(library):
        with Client(library, path, backend=backend) as client:
            rainy = Image(library, "nv12", WIDTH, HEIGHT, bt709, gap).fill(planes)
            clean, rain = Image(library, "bgr", WIDTH, HEIGHT), np.zeros((HEIGHT, WIDTH), np.float32)
            client.run(rainy, clean, rain)
            np.testing.assert_array_equal(clean.planes[0], painted(planes[0], planes[1]))
            np.testing.assert_allclose(rain, planes[0] / np.float32(255), atol=1e-6)
            i420 = [planes[0], planes[1][..., 0], planes[1][..., 1]]
            again = Image(library, "bgr", WIDTH, HEIGHT)
            client.run(Image(library, "i420", WIDTH, HEIGHT, bt709, gap).fill(i420), again)
            np.testing.assert_array_equal(again.planes[0], clean.planes[0])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("colour", [0, 3])
def test_other_frames_are_converted_for_an_nv12_model(
    library: ctypes.CDLL, standin: ModuleType, tmp_path: Path, name: str, colour: int
) -> None:
    """Through BGR, by the frame's colours and then by the model's."""
    path = save_nv12(standin, tmp_path / "model.onnx", yuv="bt709-limited")
    planes = to_planes(np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), name, colour)
    with Client(library, path) as client:
        rainy, clean = Image(library, name, WIDTH, HEIGHT, colour).fill(planes), Image(library, "bgr", WIDTH, HEIGHT)
        client.run(rainy, clean)
        y, uv = to_planes(np.ascontiguousarray(to_bgr(planes, name, colour)), "nv12", 2)
        np.testing.assert_array_equal(clean.planes[0], painted(y, uv))


def test_effects_and_shared_memory_with_an_nv12_model(
    library: ctypes.CDLL, standin: ModuleType, tmp_path: Path
) -> None:
    path, planes = save_nv12(standin, tmp_path / "model.onnx", yuv="bt601-full"), planes_of(3)
    with Client(library, path) as client:
        rainy = Image(library, "nv12", WIDTH, HEIGHT, 1).fill(planes)
        back = Image(library, "bgr", WIDTH, HEIGHT)
        client.run(rainy, back, strength=0)
        np.testing.assert_array_equal(back.planes[0], to_bgr(planes, "nv12", 1))
        apart = Image(library, "nv12", WIDTH, HEIGHT, 1)
        client.run(rainy, apart)
        client.run(rainy, rainy)
        for found, wanted in zip(rainy.planes, apart.planes, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_nv12_models_take_even_sizes_only(library: ctypes.CDLL, standin: ModuleType, tmp_path: Path) -> None:
    path = save_nv12(standin, tmp_path / "model.onnx")
    for width, height in ((WIDTH + 1, HEIGHT), (WIDTH, HEIGHT + 1)):
        with Client(library, path) as client, pytest.raises(FrameError, match="an even width and height"):
            client.run(Image(library, "nv12", width, height), Image(library, "bgr", width, height))


def test_float16_ports(
    library: ctypes.CDLL, standin: ModuleType, pictures: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = save_half(standin, tmp_path / "half.onnx")
    for backend in backends(library):
        with Client(library, path, backend=backend) as client, derain.load(path, backend=backend.decode()) as model:
            for picture in pictures:
                height, width = picture.shape[:2]
                rainy, clean = (
                    Image(library, "bgr", width, height).fill([picture]),
                    Image(library, "bgr", width, height),
                )
                rain = np.zeros((height, width), np.float32)
                client.run(rainy, clean, rain)
                expected, expected_rain = model(picture, attention=True)
                np.testing.assert_array_equal(clean.planes[0], expected)
                np.testing.assert_array_equal(rain, expected_rain)


def test_rain_map_alone(library: ctypes.CDLL, standin: ModuleType, model_path: Path, tmp_path: Path) -> None:
    extractor = save_extractor(standin, tmp_path / "edge.attention.onnx")
    frame = np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    rainy, clean = Image(library, "bgr", WIDTH, HEIGHT).fill([frame]), Image(library, "bgr", WIDTH, HEIGHT)
    wide = np.zeros((HEIGHT, WIDTH + 2), np.float32)
    for path in (extractor, model_path):
        with Client(library, path) as client:
            request = client.request(rainy, clean, wide[:, :WIDTH])
            request.clean = None
            native.check(library, library.derain_run_request(client.handle, byref(request)))
            if path == extractor:
                np.testing.assert_allclose(wide[:, :WIDTH], frame.mean(-1) / 255, atol=1e-6)
                with pytest.raises(BackendError, match="which gives rain maps only"):
                    client.run(rainy, clean)
            native.check(library, library.derain_submit(client.handle, byref(request)))
            native.check(library, library.derain_collect(client.handle, -1, None))
            request.rain = None
            with pytest.raises(BackendError, match="asks for no result"):
                native.check(library, library.derain_run_request(client.handle, byref(request)))
    assert (wide[:, WIDTH:] == 0).all()
