"""The self-test tells a right engine from one that is black, shifted, swapped or imprecise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_machines import SIZES
from numpy.typing import NDArray
from standin import card_of, expected, save_model

from derain.card import Precision, Profile
from derain.errors import BackendError
from derain.runtime.backends.base import Buffers
from derain.runtime.engine.selftest import describe, fixed_inputs, picture_size, self_test

Change = Callable[[NDArray[Any], NDArray[Any]], None]


class Engine:
    """The stand-in network in NumPy, with something done to its results."""

    def __init__(self, change: Change = lambda clean, rain: None) -> None:
        self._change = change

    def infer(self, inputs: Buffers, outputs: Buffers) -> None:
        clean = expected(inputs["frame"][0])[None]
        rain = clean.mean(-1) / 255
        outputs["derained"][:] = clean
        outputs["attention"][:] = rain
        self._change(outputs["derained"], outputs["attention"])


def check(tmp_path: Path, change: Change = lambda clean, rain: None, kind: Any = "float32") -> Any:
    card = card_of(profile=SIZES, precision=Precision(kind=kind))
    path = save_model(tmp_path / "m.onnx", card=card)
    return self_test(Engine(change), card, SIZES, path, "TensorRT 10.3.0")


def test_a_right_engine_passes(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert result.size == (1, 96, 128)
    assert result.psnr is None or result.psnr > 50
    assert result.reference.startswith("ONNX Runtime")
    assert "self-test on 128x96" in describe(result)


def noise(sigma: float) -> Change:
    def add(clean: NDArray[Any], rain: NDArray[Any]) -> None:
        noisy = clean + np.random.default_rng(1).normal(0, sigma, clean.shape)
        clean[:] = np.clip(np.rint(noisy), 0, 255)

    return add


def fill(value: float) -> Change:
    def change(clean: NDArray[Any], rain: NDArray[Any]) -> None:
        clean[:] = value

    return change


def not_numbers(clean: NDArray[Any], rain: NDArray[Any]) -> None:
    rain[0, 3, 5] = np.nan


def shift(clean: NDArray[Any], rain: NDArray[Any]) -> None:
    clean[:] = np.roll(clean, (1, -2), (1, 2))


def swap(clean: NDArray[Any], rain: NDArray[Any]) -> None:
    clean[:] = clean[..., ::-1].copy()


def no_rain(clean: NDArray[Any], rain: NDArray[Any]) -> None:
    rain[:] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fill(0), "all black"),
        (fill(90), "all of one colour"),
        (not_numbers, "1 values in 'attention' that are no numbers"),
        (shift, "shifted by -2 pixels to the right and 1 down"),
        (swap, "red and blue swapped"),
        (no_rain, "'attention' is"),
        (noise(2), r"'derained' is 4\d\.\d dB.*at least 50 dB for float32"),
    ],
)
def test_a_wrong_engine_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        check(tmp_path, change)


def test_lower_precision_may_differ_more(tmp_path: Path) -> None:
    assert check(tmp_path, noise(1), "float16").psnr > 42
    with pytest.raises(BackendError, match="at least 42 dB"):
        check(tmp_path, noise(4), "float16")
    assert check(tmp_path, noise(4), "int8").psnr > 30


def test_without_a_reference_the_result_is_looked_at_alone() -> None:
    result = self_test(Engine(), card_of(), SIZES, None, "TensorRT")
    assert result.psnr is None
    assert "finite and not black; no reference" in describe(result)
    with pytest.raises(BackendError, match="black"):
        self_test(Engine(fill(0)), card_of(), SIZES, None, "TensorRT")


def test_the_picture_fits_the_profile() -> None:
    assert picture_size(Profile(min=(1, 8, 8), opt=(1, 720, 1280), max=(4, 1080, 1920))) == (1, 256, 384)
    assert picture_size(Profile(min=(2, 720, 1280), opt=(2, 720, 1280), max=(2, 720, 1280))) == (2, 720, 1280)


@pytest.mark.parametrize("form", ["uint8", "uint8_rgb", "float"])
def test_the_picture_is_the_same_in_every_form(form: Any) -> None:
    card = card_of(form)
    (values,) = fixed_inputs(card, (1, 64, 96)).values()
    (bgr,) = fixed_inputs(card_of(), (1, 64, 96)).values()
    if form == "float":
        values = np.rint(values * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    if form != "uint8":
        values = values[..., ::-1]
    np.testing.assert_allclose(values.astype(int), bgr, atol=1)  # a half may round to either side
    assert bgr.std() > 20
