"""One number for how hard it rains, and the scale that parts a model's rainy pictures from its dry ones."""

from __future__ import annotations

import numpy as np
import pytest

from derain.rain_intensity import half_between, intensity, typical_cell


def test_intensity() -> None:
    levels = [intensity(np.full((48, 64), level, np.float32)) for level in (0.0, 0.001, 0.006, 0.02, 1.0)]
    assert levels[0] == 0
    assert levels == sorted(levels)
    assert levels[2] == pytest.approx(0.5)
    assert levels[-1] <= 1
    one_corner = np.zeros((60, 60), np.float32)
    one_corner[:20, :20] = 1
    assert intensity(one_corner) == 0, "a patch of grass is no rain"
    assert 0 < intensity(np.full((1, 1), 0.5, np.float32)) < 1


def test_the_scale_is_the_model_s() -> None:
    rain = np.full((48, 64), 0.02, np.float32)
    assert typical_cell(rain) == pytest.approx(0.02)
    assert intensity(rain, 0.02) == pytest.approx(0.5)
    assert intensity(rain, 0.04) == pytest.approx(1 / 3)


def test_a_third_parts_rainy_from_dry() -> None:
    rainy, dry = [0.04, 0.05, 0.06, 0.08, 0.1, 0.2, 0.3, 0.4], [0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01]
    half = half_between(rainy, dry)
    assert half == pytest.approx(2 * 0.02)  # the middle of the gap from 0.01 to 0.04, on a logarithmic scale
    for cell in rainy:
        assert intensity(np.full((6, 6), cell, np.float32), half) > 1 / 3
    for cell in dry:
        assert intensity(np.full((6, 6), cell, np.float32), half) < 1 / 3


def test_a_stray_picture_does_not_move_it_far() -> None:
    rainy, dry = [0.0005, *np.linspace(0.04, 0.4, 20)], [*np.linspace(0.001, 0.01, 20), 0.3]
    half = half_between(rainy, dry)
    assert half is not None
    assert 0.01 < half / 2 < 0.04


def test_a_missed_shower_counts_twice_a_false_alarm() -> None:
    half = half_between([0.01, *[0.1] * 7], [*[0.001] * 7, 0.02])
    assert half is not None
    assert 0.001 < half / 2 < 0.01


@pytest.mark.parametrize(
    ("rainy", "dry"),
    [
        ([0.1] * 7, [0.0] * 8),
        ([0.1] * 8, [0.0] * 7),
        ([0.0] * 8, [0.0] * 8),
        ([0.1] * 8, [0.1] * 8),
        ([0.1] * 8, [0.9] * 8),
    ],
)
def test_where_there_is_nothing_to_tell(rainy: list[float], dry: list[float]) -> None:
    assert half_between(rainy, dry) is None
