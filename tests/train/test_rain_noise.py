from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from derain.errors import UsageError
from derain.train.rain import camera
from derain.train.rain.degradation import degrade
from derain.train.rain.fog import TRANSMISSION_FLOOR, draw_airlight, draw_transmission
from derain.train.rain.regimes import REGIMES
from derain.train.rain.streaks import StreakLayer, VeilLayer, draw_streaks, draw_veil
from derain.train.rain.synthesiser import NoiseRain, NoiseRainConfig, _hide_scene

# mean input PSNR (dB, all channels) that each regime keeps to on the scene below, and mean transmission
BOUNDS = {
    "rain100l_like": ((23.0, 31.0), (1.0, 1.0)),
    "drizzle": ((30.0, 44.0), (0.95, 1.0)),
    "medium": ((21.0, 31.0), (0.86, 1.0)),
    "heavy": ((16.0, 25.0), (0.84, 1.0)),
    "specks": ((22.0, 34.0), (0.8, 1.0)),
    "sheet": ((17.0, 28.0), (0.65, 0.98)),
    "rain_fog": ((12.0, 21.0), (0.35, 0.65)),
    "fog_only": ((14.0, 27.0), (0.45, 0.75)),
}


def _scene(height: int = 160, width: int = 240) -> np.ndarray:
    rng = np.random.default_rng(5)
    coarse = rng.random((8, 12, 3), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.8, 0, 1)


def _only(name: str, **options: Any) -> NoiseRain:
    return NoiseRain(NoiseRainConfig(weights={name: 1.0}, **options))


def _layer(**changes: float) -> StreakLayer:
    values = {
        "coverage": 0.08, "length": 24.0, "length_spread": 0.2, "width": 0.7, "angle": 0.0, "brightness": 0.3,
        "brightness_spread": 0.5, "convergence": 0.0,
    }  # fmt: skip
    return StreakLayer(**{**values, **changes})


def _direction(streaks: np.ndarray) -> float:
    """Fall direction in degrees from vertical by the structure tensor; positive leans to the right on the way down."""
    smooth = cv2.GaussianBlur(streaks, (0, 0), 1.2)  # Sobel favours the grid's own directions in what is a pixel wide
    gx, gy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    return -math.degrees(0.5 * math.atan2(2 * float((gx * gy).sum()), float((gx**2 - gy**2).sum())))


def test_every_regime_has_its_bounds_here() -> None:
    assert set(BOUNDS) == set(REGIMES)
    assert sum(regime.weight for regime in REGIMES.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", list(REGIMES))
def test_regime_statistics(name: str) -> None:
    rain, clean, rng = _only(name, night=0.0), _scene(), np.random.default_rng(0)
    samples = [rain(clean, rng) for _ in range(60)]
    psnr = [10 * math.log10(1 / max(float(((s.rainy - s.clean) ** 2).mean()), 1e-6)) for s in samples]
    (low, high), (thick, thin) = BOUNDS[name]
    assert low < np.mean(psnr) < high
    assert thick <= np.mean([s.transmission.mean() for s in samples]) <= thin
    assert all(s.regime == name for s in samples)


@pytest.mark.parametrize("shape", [(16, 16), (33, 57), (321, 481), (101, 20)])
def test_shapes_dtypes_and_ranges(shape: tuple[int, int]) -> None:
    rain, rng = NoiseRain(), np.random.default_rng(0)
    clean = _scene(*shape)
    before = clean.copy()
    for _ in range(25):
        sample = rain(clean, rng)
        assert sample.rainy.shape == sample.clean.shape == (*shape, 3)
        assert sample.streaks.shape == sample.transmission.shape == shape
        assert sample.airlight.shape == (3,)
        for array in (sample.rainy, sample.clean, sample.streaks, sample.transmission, sample.airlight):
            assert array.dtype == np.float32
            assert np.isfinite(array).all()
        assert 0 <= sample.rainy.min() <= sample.rainy.max() <= 1
        assert 0 <= sample.clean.min() <= sample.clean.max() <= 1
        assert sample.streaks.min() >= 0
        assert TRANSMISSION_FLOOR - 1e-6 <= sample.transmission.min() <= sample.transmission.max() <= 1
        assert not np.shares_memory(sample.rainy, clean)
    np.testing.assert_array_equal(clean, before)


def test_the_same_seed_gives_the_same_rain_and_another_seed_another() -> None:
    rain, clean = NoiseRain(), _scene()
    for seed in range(12):
        first, again = (rain(clean, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first.rainy, again.rainy)
        np.testing.assert_array_equal(first.streaks, again.streaks)
        other = rain(clean, np.random.default_rng(seed + 100))
        assert np.abs(first.rainy - other.rainy).max() > 0.02


def test_rain100l_like_is_exactly_the_degradation_model() -> None:
    rain = _only("rain100l_like", night=0.0, noise=0.0, jpeg=0.0, soften=0.0)
    clean = _scene()
    for seed in range(8):
        sample = rain(clean, np.random.default_rng(seed))
        np.testing.assert_array_equal(sample.clean, clean)
        again = degrade(sample.clean, sample.streaks, sample.transmission, sample.airlight)
        np.testing.assert_array_equal(sample.rainy, again)
        assert sample.streaks.max() > 0.02


def test_streaks_that_hide_the_scene_brighten_the_dark_and_spare_the_bright() -> None:
    none, half = np.zeros((64, 64), np.float32), np.full((64, 64), 0.3, np.float32)
    clean = np.full((64, 64, 3), 0.1, dtype=np.float32)
    clean[:, 32:] = 0.9
    rise = _hide_scene(clean, none, half)
    # the grey is 0.15 + 0.9 * 0.9 = 0.96, hidden is 0.3 / 0.96 of the scene
    np.testing.assert_allclose(rise[:, :32], 0.3 / 0.96 * 0.86, atol=1e-5)
    np.testing.assert_allclose(rise[:, 32:], 0.3 / 0.96 * 0.06, atol=1e-5)
    np.testing.assert_allclose(_hide_scene(clean, half, none), 0.3, atol=1e-6)


def test_dry_limit() -> None:
    assert not draw_streaks((40, 60), _layer(coverage=0.0), np.random.default_rng(0)).any()
    veil = VeilLayer(length=20, angle=5, threshold=1e3, brightness=0.3)
    assert not draw_veil((40, 60), veil, np.random.default_rng(0)).any()
    clean = _scene()
    dry = degrade(clean, np.zeros(clean.shape[:2], np.float32), np.ones(clean.shape[:2], np.float32), np.ones(3))
    np.testing.assert_array_equal(dry, clean)


@pytest.mark.parametrize("angle", [-35.0, -10.0, 0.0, 20.0, 40.0])
def test_streaks_fall_in_the_direction_asked_for(angle: float) -> None:
    streaks = draw_streaks((200, 260), _layer(angle=angle, length=40.0), np.random.default_rng(2))
    assert _direction(streaks) == pytest.approx(angle, abs=2.0)
    veil = draw_veil(
        (200, 260), VeilLayer(length=40, angle=angle, threshold=0.5, brightness=0.2), np.random.default_rng(2)
    )
    assert _direction(veil) == pytest.approx(angle, abs=5.0)  # columns of one pixel: stair-cased


def test_coverage_and_length_do_what_they_say() -> None:
    rng = np.random.default_rng(0)
    for shape in ((24, 24), (200, 200)):
        for coverage in (0.03, 0.1, 0.3):
            layer = _layer(coverage=coverage)
            light = np.mean([draw_streaks(shape, layer, rng).mean() for _ in range(40000 // shape[0] ** 2 * 4 + 8)])
            assert light / layer.brightness == pytest.approx(coverage, rel=0.2)

    def correlation(length: float) -> float:
        streaks = draw_streaks((200, 200), _layer(length=length), rng)
        centred = streaks - streaks.mean()
        return float((centred[:-12] * centred[12:]).mean() / centred.var())

    assert correlation(6.0) < 0.1
    assert correlation(60.0) > 0.5


def test_beads_darken_places_along_a_streak_and_only_there() -> None:
    def layer(beads: float) -> np.ndarray:
        few = _layer(length=60.0, length_spread=0.0, coverage=0.05, beads=beads)
        return draw_streaks((300, 300), few, np.random.default_rng(4))

    even, beaded = layer(0.0), layer(0.9)
    wet = even > 0.05
    np.testing.assert_array_equal(beaded[even == 0.0], 0.0)
    kept = beaded[wet] / even[wet]
    assert kept.max() <= 1.0 + 1e-5
    assert kept.mean() == pytest.approx(1.0 - 0.9 / 2, abs=0.05)
    assert kept.std() > 0.1


def test_wide_short_drops_are_round_and_soft() -> None:
    """A drop stopped in flight and out of focus is as soft above and below as to its sides."""
    single = _layer(length=2.0, length_spread=0.0, width=3.0, coverage=0.02, brightness_spread=0.1)
    streaks = draw_streaks((200, 200), single, np.random.default_rng(1))
    across, along = (float(np.abs(np.diff(streaks, axis=axis)).mean()) for axis in (1, 0))
    assert along == pytest.approx(across, rel=0.15)


def test_convergence_fans_the_streaks_out() -> None:
    streaks = draw_streaks((240, 480), _layer(length=50.0, convergence=0.3), np.random.default_rng(0))
    left, right = _direction(streaks[:, :120].copy()), _direction(streaks[:, 360:].copy())
    assert abs(left - right) > 5.0
    assert left * right < 0


def test_transmission_and_airlight() -> None:
    clean, rng = _scene(), np.random.default_rng(0)
    even = draw_transmission(clean, 0.4, rng, unevenness=0.0)
    np.testing.assert_allclose(even, 0.4, atol=1e-5)
    fields = [draw_transmission(clean, 0.4, rng) for _ in range(20)]
    assert min(field.min() for field in fields) >= TRANSMISSION_FLOOR - 1e-6
    assert 0.35 < np.mean(fields) < 0.5
    assert np.mean([field.std() for field in fields]) > 0.03
    steepest = max(float(np.abs(np.diff(field, axis=axis)).max()) for field in fields for axis in (0, 1))
    assert steepest < 0.08  # smooth: no edge of the scene comes back as an edge of the mist
    lights = np.array([draw_airlight(rng) for _ in range(300)])
    assert 0.55 < lights.mean() < 0.65
    assert np.ptp(lights, axis=1).max() < 0.12


def test_night_darkens_both_and_resize_blurs_both() -> None:
    clean = _scene()
    night = NoiseRain(NoiseRainConfig(weights={"drizzle": 1.0}, night=1.0))(clean, np.random.default_rng(0))
    assert night.clean.mean() < 0.75 * clean.mean()
    assert np.abs(night.rainy - night.clean).mean() < 0.05
    noise = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    assert camera.soften(noise, 0.5).std() < 0.7 * noise.std()


def test_noise_and_jpeg_are_mild_and_of_the_rainy_side_only() -> None:
    grey = np.full((128, 128, 3), 0.5, dtype=np.float32)
    noisy = grey.copy()
    camera.add_noise(noisy, 0.01, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(0.01, rel=0.05)
    assert abs(np.corrcoef(noisy[..., 0].ravel(), noisy[..., 1].ravel())[0, 1]) < 0.05
    compressed = camera.jpeg(_scene(), 90)
    assert 0 < np.abs(compressed - _scene()).mean() < 0.02
    config = NoiseRainConfig(weights={"fog_only": 1.0}, noise=1.0, jpeg=1.0, night=0.0, soften=0.0)
    np.testing.assert_array_equal(NoiseRain(config)(grey, np.random.default_rng(0)).clean, grey)


@pytest.mark.parametrize("weights", [{"hail": 1.0}, {"heavy": -1.0}, {"heavy": 0.0}])
def test_wrong_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        NoiseRainConfig(weights=weights)


def test_light_mist_stays_in_the_target_and_thick_mist_goes() -> None:
    """Between the limits in part; and the rainy picture is the same whatever the target keeps."""
    clean = _scene()
    options: dict[str, float] = {"noise": 0.0, "jpeg": 0.0, "night": 0.0, "soften": 0.0}
    kept_by_transmission = []
    for seed in range(40):
        plain, keeping = (
            _only("fog_only", keep_mist=limits, **options)(clean, np.random.default_rng(seed))
            for limits in (None, (0.45, 0.7))
        )
        np.testing.assert_array_equal(plain.rainy, keeping.rainy)
        np.testing.assert_array_equal(plain.clean, clean)
        moved = float(np.abs(keeping.clean - clean).mean() / np.abs(plain.rainy - clean).mean())
        kept_by_transmission.append((float(keeping.transmission.mean()), moved))
    thick = [moved for mean, moved in kept_by_transmission if mean < 0.45]
    thin = [moved for mean, moved in kept_by_transmission if mean > 0.7]
    between = [moved for mean, moved in kept_by_transmission if 0.5 < mean < 0.65]
    assert thick
    assert thin
    assert between
    assert max(thick) == 0.0
    assert min(thin) == pytest.approx(1.0, abs=1e-5)
    assert all(0.0 < moved < 1.0 for moved in between)


@pytest.mark.parametrize("limits", [(0.7, 0.4), (0.0, 0.5), (0.5, 1.5)])
def test_limits_of_kept_mist_are_transmissions(limits: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="keep_mist"):
        NoiseRainConfig(keep_mist=limits)
