"""bfloat16 is there for those who ask for it, says what it is, and stays near the float32 picture."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openvino
import pytest
from standin import card_of, save_model

import derain
from derain.card import Precision
from derain.demo import make_clip
from derain.errors import BackendError
from derain.runtime.backends import choose, openvino_bfloat16
from derain.runtime.backends.openvino_bfloat16 import OpenVinoBfloat16
from derain.runtime.backends.openvino_cpu import OpenVinoCpu, _agree

HAVE = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_units = pytest.mark.skipif(not HAVE, reason="this CPU has no bfloat16 units")


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """A thread to compute in: one that used AMX has so many registers that Python's faulthandler, which pytest turns
    on, has too small a stack for its signals, and a later test that raises one would crash.
    """
    with ThreadPoolExecutor(1) as pool:
        yield pool


@needs_units
def test_pictures_stay_within_a_few_levels_at_any_size_and_the_fixed_one(beside: ThreadPoolExecutor) -> None:
    beside.submit(_stays_within_a_few_levels).result()


def _stays_within_a_few_levels() -> None:
    frame = make_clip(1).rainy[0]
    with derain.load("nano", "openvino", threads=1) as plain, derain.load("nano", "openvino-bf16", threads=1) as fast:
        expected, rain = plain(frame, attention=True)
        results = [fast(frame, attention=True) for _ in range(5)]
        assert fast.device.startswith("OpenVINO")
        assert "in bfloat16" in fast.device
        (fixed,) = fast.backend._fixed.values()  # type: ignore[attr-defined]
        assert fixed is not None, "the graph for the size serves"
    for clean, map_ in (results[0], results[-1]):
        apart = np.abs(clean.astype(int) - expected)
        assert 0 < apart.max() <= 4
        assert (apart > 1).mean() < 0.01
        assert np.abs(map_ - rain).max() < 0.05


def test_auto_never_takes_it(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx")
    assert choose("auto", card_of())[0] is OpenVinoCpu
    assert choose("auto", card_of(), path=path, threads=1)[0] is not OpenVinoBfloat16


def test_other_cpus_and_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_of(precision=Precision(kind="int8"))
    path = save_model(tmp_path / "m.onnx", card=card)
    with pytest.raises(BackendError, match="computes in int8"):
        OpenVinoBfloat16(path, card, 1).open()
    core = SimpleNamespace(get_property=lambda device, name: ["FP32", "INT8"])
    monkeypatch.setattr(openvino_bfloat16, "shared_core", lambda: core)
    with pytest.raises(BackendError, match=r"bfloat16 units .*backend openvino"):
        choose("openvino-bf16", card_of())
    assert "bfloat16 units" in str(OpenVinoBfloat16.unavailable())
    assert openvino_bfloat16.OpenVinoBfloat16.extra == "openvino"


@pytest.mark.parametrize(
    ("apart", "share", "rounding", "same"),
    [
        (1, 0.0005, OpenVinoCpu.rounding, True),
        (1, 0.01, OpenVinoCpu.rounding, False),
        (2, 0.0005, OpenVinoCpu.rounding, False),
        (3, 0.5, OpenVinoBfloat16.rounding, True),
        (6, 0.01, OpenVinoBfloat16.rounding, False),
        (7, 0.0001, OpenVinoBfloat16.rounding, False),
    ],
)
def test_what_counts_as_the_same_picture(apart: int, share: float, rounding: tuple[int, float], same: bool) -> None:
    picture = np.full((100, 100, 3), 100, np.uint8)
    other = picture.reshape(-1).copy()
    other[: round(share * other.size)] += apart
    assert _agree(other.reshape(picture.shape), picture, *rounding) is same
