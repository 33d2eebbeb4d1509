"""The C library gives the bytes of the Python runtime, in every pixel format, and converts colours as OpenCV does."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from native_client import FORMATS, Client, Image, to_bgr, to_planes
from numpy.typing import NDArray

import derain
from derain.images import read_image
from derain.models import shipped
from derain.runtime.backends import native_library as native

Pictures = list[NDArray[np.uint8]]


def assert_same_bytes(
    library: ctypes.CDLL, path: Path, pictures: Pictures, colours: list[int], gap: int = 0, backend: str = "openvino"
) -> None:
    with Client(library, path, backend=backend.encode()) as client, derain.load(path, backend=backend) as model:
        for picture in pictures:
            height, width = picture.shape[:2]
            for name in FORMATS:
                for colour in colours if name in ("nv12", "i420") else [0]:
                    planes = to_planes(picture, name, colour)
                    rainy = Image(library, name, width, height, colour, gap).fill(planes)
                    clean = Image(library, name, width, height, colour, gap)
                    rain = np.zeros((height, width), np.float32)
                    client.run(rainy, clean, rain)
                    frame = np.ascontiguousarray(to_bgr(planes, name, colour))
                    expected, expected_rain = model(frame, attention=True)
                    for found, wanted in zip(clean.planes, to_planes(expected, name, colour), strict=True):
                        np.testing.assert_array_equal(found, wanted, err_msg=f"{name} {colour} {width}x{height}")
                    np.testing.assert_array_equal(rain, expected_rain)
                    for memory, plane in zip(clean.memory, clean.planes, strict=True):
                        assert (memory[:, memory.shape[1] - gap :] == 0xA5).all() or gap == 0, plane.shape
                    for found, wanted in zip(rainy.planes, planes, strict=True):
                        np.testing.assert_array_equal(found, wanted, err_msg="the input was changed")


@pytest.mark.parametrize("gap", [0, 13])
def test_bytes_of_the_python_runtime(library: ctypes.CDLL, model_path: Path, pictures: Pictures, gap: int) -> None:
    assert_same_bytes(library, model_path, pictures, [0, 1, 2, 3], gap)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_bytes_with_shipped_models(library: ctypes.CDLL, name: str) -> None:
    """Real graphs, which both runtimes rewrite alike; from the fourth frame on they are compiled for its size."""
    picture: NDArray[np.uint8] = np.random.default_rng(7).integers(0, 256, (90, 160, 3), np.uint8)
    assert_same_bytes(library, shipped()[name].path, [picture] * 5, [])


def test_bytes_of_python_with_onnxruntime(library: ctypes.CDLL, model_path: Path, pictures: Pictures) -> None:
    names = [library.derain_backend_name(index) for index in range(4)]
    if b"onnxruntime" not in names:
        pytest.skip("this libderain was built without ONNX Runtime, whose headers come with its releases only")
    assert_same_bytes(library, model_path, pictures, [0, 3], gap=3, backend="onnxruntime")


def planes_of(picture: NDArray[np.uint8], name: str, colour: int) -> list[NDArray[Any]]:
    """In any format of the C API, float planes R, G, B among them."""
    if name == "f32":
        return [picture[..., channel] * np.float32(1 / 255) for channel in (2, 1, 0)]
    return list(to_planes(picture, name, colour))


def assert_same_bytes_in_c(program: Path, path: Path, pictures: Pictures, colours: list[int]) -> None:
    for name, number in {**FORMATS, "f32": native.RGB_PLANAR_F32}.items():
        for colour in colours if name in ("nv12", "i420") else [0]:
            data, expected = b"", b""
            # A model of its own for each run of the program: which of OpenVINO's graphs serves a frame, the one for any
            # size or one for its own, depends on the frames before it, and they differ by rounding.
            with derain.load(path, backend="openvino") as model:
                for picture in pictures:
                    planes = planes_of(picture, name, colour)
                    frame = picture if name == "f32" else np.ascontiguousarray(to_bgr(planes, name, colour))
                    height, width = picture.shape[:2]
                    data += struct.pack("=ii", width, height) + b"".join(plane.tobytes() for plane in planes)
                    expected += b"".join(plane.tobytes() for plane in planes_of(model(frame), name, colour))
            command = [str(program), str(path), str(number), str(colour)]
            result = subprocess.run(command, input=data, capture_output=True, timeout=600, check=False)
            assert result.returncode == 0, result.stderr
            assert result.stdout == expected, f"{name} {colour}"


@pytest.fixture(scope="session")
def frames_program(library: ctypes.CDLL) -> Path:
    """derain_frames.c, built beside the library."""
    program = Path(native.library_path()).resolve().parent / "derain_frames"
    if not program.is_file():
        pytest.skip(f"'{program}' was not built")
    return program


def test_bytes_of_a_c_program(frames_program: Path, model_path: Path, pictures: Pictures) -> None:
    assert_same_bytes_in_c(frames_program, model_path, pictures, [0, 1, 2, 3])


def real_pictures(shared_data: Path) -> Pictures:
    files = sorted((shared_data / "real").rglob("*.jpg")) + sorted((shared_data / "real").rglob("*.png"))
    files += sorted((shared_data / "Rain100L").rglob("*.png"))
    if len(files) < 50:
        pytest.skip(f"no evaluation data: {len(files)} pictures, 50 wanted")
    step = len(files) // 50
    return [read_image(path) for path in files[: 50 * step : step]]


@pytest.mark.full
def test_bytes_of_the_python_runtime_on_50_real_pictures(
    library: ctypes.CDLL, frames_program: Path, model_path: Path, shared_data: Path
) -> None:
    pictures = real_pictures(shared_data)
    assert len(pictures) == 50
    path = next((model.path for name, model in shipped().items() if name == "nano"), model_path)
    assert_same_bytes(library, path, pictures, [0, 3])
    assert_same_bytes_in_c(frames_program, path, pictures, [0, 3])


def test_real_pictures(library: ctypes.CDLL, model_path: Path, shared_data: Path) -> None:
    assert_same_bytes(library, model_path, real_pictures(shared_data)[::10], [0])


@pytest.mark.parametrize("form", ["uint8_rgb", "float"])
def test_models_with_other_ports(
    library: ctypes.CDLL, standin: object, pictures: Pictures, form: str, tmp_path: Path
) -> None:
    path = standin.save_model(tmp_path / "model.onnx", form)  # type: ignore[attr-defined]
    assert_same_bytes(library, path, pictures, [2], gap=5)


def converted(library: ctypes.CDLL, client: Client, source: Image, name: str, width: int, height: int) -> Image:
    """Strength 0 gives the input back, in the output's format."""
    target = Image(library, name, width, height)
    client.run(source, target, strength=0)
    return target


def test_conversions_are_those_of_opencv(library: ctypes.CDLL, model_path: Path) -> None:
    """BT.601 limited range, every level of Y, U and V, within one level."""
    random = np.random.default_rng(1)
    width, height = 64, 48
    with Client(library, model_path) as client:
        for _ in range(8):
            stacked = random.integers(0, 256, (height * 3 // 2, width), np.uint8)
            for name, code in (("nv12", cv2.COLOR_YUV2BGR_NV12), ("i420", cv2.COLOR_YUV2BGR_I420)):
                chroma = stacked[height:]
                planes = [stacked[:height], *chroma.reshape(2, height // 2, width // 2)]
                if name == "nv12":
                    planes = [stacked[:height], chroma.reshape(height // 2, width // 2, 2)]
                source = Image(library, name, width, height).fill(planes)
                bgr = converted(library, client, source, "bgr", width, height).planes[0]
                assert np.abs(bgr.astype(int) - cv2.cvtColor(stacked, code)).max() <= 1
            picture = random.integers(0, 256, (height, width, 3), np.uint8)
            source = Image(library, "bgr", width, height).fill([picture])
            planes = converted(library, client, source, "i420", width, height).planes
            found = np.concatenate([planes[0].ravel(), planes[1].ravel(), planes[2].ravel()])
            expected = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).ravel()
            assert np.abs(found.astype(int) - expected).max() <= 1


def test_formats_may_differ_between_input_and_output(
    library: ctypes.CDLL, model_path: Path, pictures: Pictures
) -> None:
    picture = pictures[0]
    height, width = picture.shape[:2]
    with Client(library, model_path) as client:
        reference = Image(library, "bgr", width, height)
        client.run(Image(library, "bgr", width, height).fill([picture]), reference)
        for name in FORMATS:
            target = Image(library, name, width, height, colour=3, gap=2)
            client.run(Image(library, "rgb", width, height).fill([picture[..., ::-1]]), target)
            for found, wanted in zip(target.planes, to_planes(reference.planes[0], name, 3), strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_alpha_is_kept(library: ctypes.CDLL, model_path: Path) -> None:
    random = np.random.default_rng(5)
    pixels = random.integers(0, 256, (9, 7, 4), np.uint8)
    rainy, clean = Image(library, "bgra", 7, 9).fill([pixels]), Image(library, "bgra", 7, 9)
    with Client(library, model_path) as client:
        client.run(rainy, clean)
    np.testing.assert_array_equal(clean.planes[0][..., 3], pixels[..., 3])
    assert (clean.planes[0][..., :3] != pixels[..., :3]).any()
