"""derain.load(..., backend="native"): Python over C."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from port_models import save_half

import derain
from derain.card import read_card
from derain.errors import BackendError, ModelFileError
from derain.runtime.backends import find, native_library
from derain.runtime.backends.native import Native


@pytest.mark.parametrize("form", ["uint8", "uint8_rgb", "float"])
def test_same_bytes_as_the_python_backend(
    library: ctypes.CDLL, standin: ModuleType, pictures: list[NDArray[np.uint8]], form: str, tmp_path: Path
) -> None:
    path = standin.save_model(tmp_path / "model.onnx", form)
    with derain.load(path, backend="native") as native, derain.load(path, backend="openvino") as python:
        assert native.backend_name == "native"
        assert "libderain" in native.device
        assert "OpenVINO" in native.device
        for picture in pictures:
            clean, rain = native(picture, attention=True)
            expected, expected_rain = python(picture, attention=True)
            np.testing.assert_array_equal(clean, expected)
            np.testing.assert_array_equal(rain, expected_rain)


def test_half_floats(
    library: ctypes.CDLL, standin: ModuleType, pictures: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    """Ports of float16: of the frames, and of the rain map alone, which libderain writes as float32."""
    half = save_half(standin, tmp_path / "half.onnx")
    mixed = save_half(standin, tmp_path / "mixed.onnx", pictures=False)
    for path in (half, mixed):
        with derain.load(path, backend="native") as native, derain.load(path, backend="openvino") as python:
            for picture in pictures:
                for found, expected in zip(
                    native(picture, attention=True), python(picture, attention=True), strict=True
                ):
                    np.testing.assert_array_equal(found, expected)


def test_ports_that_libderain_has_no_frames_for(library: ctypes.CDLL, standin: ModuleType, tmp_path: Path) -> None:
    ports = [port.model_copy(update={"layout": "NHWC"}) for port in standin.card_of("float").inputs]
    path = standin.save_model(tmp_path / "model.onnx", "float")
    with pytest.raises(BackendError, match="no frames of float32 NHWC"):
        Native(path, standin.card_of("float", inputs=ports)).open()


def test_frames_are_not_copied(library: ctypes.CDLL, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: list[int] = []
    new_frame = native_library.new_frame

    def recording(library: ctypes.CDLL, pixel_format: int, width: int, height: int, *planes: int) -> Any:
        addresses.extend(planes)
        return new_frame(library, pixel_format, width, height, *planes)

    monkeypatch.setattr(native_library, "new_frame", recording)
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    frame.flags.writeable = False
    out = np.empty_like(frame)
    with derain.load(model_path, backend="native") as model:
        assert model(frame, out=out) is out
    assert addresses == [frame.ctypes.data, out.ctypes.data]


@pytest.mark.parametrize("shape", [(1, 36, 53, 3), (1, 40, 53, 3), (2, 37, 53, 3)])
def test_arrays_too_small_are_refused(library: ctypes.CDLL, model_path: Path, shape: tuple[int, ...]) -> None:
    frame, rain = np.zeros((1, 37, 53, 3), np.uint8), np.zeros((1, 37, 53), np.float32)
    with Native(model_path, read_card(model_path)) as backend, pytest.raises(BackendError, match="shape"):
        backend.infer({"frame": frame}, {"derained": np.zeros(shape, np.uint8), "attention": rain})


def test_closing_and_errors(library: ctypes.CDLL, model_path: Path, tmp_path: Path) -> None:
    backend = Native(model_path, read_card(model_path))
    backend.open()
    backend.close()
    backend.close()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model_path.read_bytes().replace(b"derain.card", b"derain.cart"))
    with pytest.raises(ModelFileError, match="without a derain model card"):
        Native(broken, read_card(model_path)).open()


def test_absent_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find("native") is Native
    monkeypatch.setenv("DERAIN_LIBRARY", str(tmp_path / "libnothing.so"))
    assert "cannot be loaded" in str(Native.unavailable())
    monkeypatch.delenv("DERAIN_LIBRARY")
    monkeypatch.setattr(native_library, "_BUILT", tmp_path / "libnothing.so")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    assert "cmake" in str(Native.unavailable())
