"""The legacy cache file and the calibrator object for TensorRT 8 and 10."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from derain.calibration import legacy
from derain.calibration.ranges import Ranges
from derain.errors import BackendError, ModelFileError, UsageError

LISTS = Path(__file__).resolve().parents[1] / "data" / "tensorrt"
RANGES = Ranges("minmax", {"picture": 1.0, "conv2d_5": 4.25, "a: b": 1e-6})


def test_the_text_is_what_tensorrt_writes() -> None:
    """Checked against a cache of NVIDIA's own: a range of 1.0 is 3c010204 or, from histograms, near it."""
    lines = legacy.cache_text(RANGES, "10.3.0").splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    assert lines[1] == "picture: 3c010204"
    assert legacy.cache_text(RANGES, "8.6.1").splitlines()[0] == "TRT-8601-EntropyCalibration2"
    assert legacy.cache_text(RANGES, "10.13.3.9").splitlines()[0] == "TRT-101303-EntropyCalibration2"


def test_it_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    legacy.write_cache(path, RANGES, "10.3")
    found = legacy.read_cache(path)
    assert found == pytest.approx({name: largest / 127 for name, largest in RANGES.largest.items()}, rel=1e-6)


@pytest.mark.parametrize("version", ["11.4.0", "7.1", "new"])
def test_versions_without_a_cache(version: str) -> None:
    with pytest.raises(UsageError, match="no calibration cache"):
        legacy.cache_text(RANGES, version)


@pytest.mark.parametrize("text", ["", "TRT-8601-MinMaxCalibration\n", "TRT-8601-EntropyCalibration2\nx: 12\n"])
def test_files_that_are_no_cache(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cache"
    path.write_text(text)
    with pytest.raises(ModelFileError):
        legacy.read_cache(path)


@pytest.mark.parametrize(
    ("version", "known"), [("8.6.1", True), ("10.3.0", True), ("10.13.3.9", True), ("11.4.0", False)]
)
def test_the_calibrator_where_tensorrt_has_one(version: str, known: bool, tmp_path: Path, monkeypatch: Any) -> None:
    """Against the real API's names: each method that we define is one TensorRT calls, and each it needs is there."""
    api = json.loads((LISTS / f"api-{version}.json").read_text())
    assert ("IInt8EntropyCalibrator2" in api) is known
    trt = SimpleNamespace(__version__=version)
    if not known:
        with pytest.raises(BackendError, match="no INT8 calibrators"):
            legacy.entropy_calibrator(trt, [], tmp_path / "cache")
        return
    members = set(api["IInt8EntropyCalibrator2"])
    trt.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), dict.fromkeys(members))
    copied: list[tuple[str, tuple[int, ...]]] = []
    monkeypatch.setattr(legacy, "_DeviceCopy", lambda: lambda name, array: copied.append((name, array.shape)) or 4096)
    feeds = [{"frame": np.zeros((1, 8, 8, 3), np.uint8)}] * 2
    calibrator = legacy.entropy_calibrator(trt, feeds, tmp_path / "cache")
    defined = {name for name in vars(type(calibrator)) if not name.startswith("_")}
    assert defined <= members
    assert members - defined == {"get_algorithm"}
    assert calibrator.get_batch_size() == 1
    assert [calibrator.get_batch(["frame"]) for _ in range(3)] == [[4096], [4096], None]
    assert copied == [("frame", (1, 8, 8, 3))] * 2
    assert calibrator.read_calibration_cache() is None
    calibrator.write_calibration_cache(memoryview(b"TRT"))
    assert calibrator.read_calibration_cache() == b"TRT"
