"""The library under test, and models made on the spot."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from derain.errors import BackendError
from derain.runtime.backends import native_library


@pytest.fixture(scope="session")
def library() -> ctypes.CDLL:
    """libderain; where it was not built the test is skipped, but never under CI."""
    try:
        return native_library.open_library(native_library.library_path())
    except BackendError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def standin() -> ModuleType:
    """tests/runtime/standin.py: small models with a card."""
    if "standin" in sys.modules:
        return sys.modules["standin"]
    path = Path(__file__).resolve().parents[1] / "runtime" / "standin.py"
    spec = importlib.util.spec_from_file_location("standin", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["standin"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model_path(standin: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3x3 box blur that takes a quarter of red away: uint8 BGR frames of any size."""
    path: Path = standin.save_model(tmp_path_factory.mktemp("native") / "blur.onnx")
    return path


@pytest.fixture(scope="session")
def pictures() -> list[NDArray[np.uint8]]:
    """Pictures of several sizes, odd ones among them: smooth, noisy, and pure colours."""
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[0:47, 0:61]
    smooth = np.stack([rows * 5 % 256, columns * 4 % 256, (rows + columns) * 2 % 256], axis=-1).astype(np.uint8)
    colours = np.kron(
        np.array(np.meshgrid([0, 128, 255], [0, 128, 255], [0, 128, 255])).T.reshape(9, 3, 3), np.ones((4, 6, 1))
    )
    return [
        smooth,
        random.integers(0, 256, (32, 48, 3), np.uint8),
        random.integers(0, 256, (1, 1, 3), np.uint8),
        random.integers(0, 256, (5, 3, 3), np.uint8),
        colours.astype(np.uint8),
    ]
