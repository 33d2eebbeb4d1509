from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from derain.errors import DataError, UsageError
from derain.train.rain.drops import (
    MARSHALL_PALMER_N0,
    marshall_palmer_slope,
    oscillation_frequency,
    rain_extinction,
    terminal_velocity,
)
from derain.train.rain.particles import ParticleRain, ParticleRainConfig, ParticleStorm, StormConfig
from derain.train.rain.splat import Paths, draw_opacity

SHARP = StormConfig(aperture=0.0, gustiness=0.0)


def _scene(height: int = 120, width: int = 180) -> np.ndarray:
    coarse = np.random.default_rng(5).random((6, 9, 3), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.7, 0, 1)


def _storm(config: StormConfig = SHARP, shape: tuple[int, int] = (120, 180), seed: int = 0) -> ParticleStorm:
    return ParticleStorm(shape, config, np.random.default_rng(seed))


def _path(**values: float) -> Paths:
    defaults = {"x": 20.0, "y": 20.0, "dx": 0.0, "dy": 0.0, "area": 0.5, "diameter": 0.8, "beads": 0.0, "phase": 0.0}
    return Paths(**{name: np.array([value]) for name, value in {**defaults, **values}.items()})


@pytest.mark.parametrize(
    ("diameter", "speed"), [(1.0, 4.03), (1.6, 5.65), (2.0, 6.49), (3.0, 8.06), (4.0, 8.83), (5.0, 9.09)]
)
def test_terminal_velocity_follows_gunn_and_kinzer_1949(diameter: float, speed: float) -> None:
    assert terminal_velocity(np.array([diameter]))[0] == pytest.approx(speed, rel=0.05)


def test_mist_drops_do_not_rise() -> None:
    assert (terminal_velocity(np.array([0.0, 0.05, 0.1])) == 0).all()


def test_marshall_palmer_gives_back_its_rain_rate_and_extinction() -> None:
    diameter = np.linspace(0.0, 12.0, 20001)
    step = diameter[1] - diameter[0]
    for rate in (5.0, 25.0):
        number = MARSHALL_PALMER_N0 * np.exp(-marshall_palmer_slope(rate) * diameter)  # 1 / (m^3 mm)
        water = math.pi / 6 * (diameter * 1e-3) ** 3 * number * terminal_velocity(diameter)  # m/s of water per mm
        assert water.sum() * step * 3.6e6 == pytest.approx(rate, rel=0.2)
        shadow = 2 * math.pi / 4 * (diameter * 1e-3) ** 2 * number
        assert rain_extinction(rate) == pytest.approx(shadow.sum() * step, rel=1e-3)
    assert rain_extinction(0.0) == 0.0


def test_a_drop_of_two_millimetres_oscillates_at_about_120_hertz() -> None:
    assert oscillation_frequency(np.array([2.0]))[0] == pytest.approx(122, rel=0.02)


def test_a_drop_moves_by_its_velocity() -> None:
    storm = _storm(replace(SHARP, wind=2.0))
    step = 1 / 480
    before, after = storm.positions(0.7), storm.positions(0.7 + step)
    moved = after - before
    expected = storm.velocity * storm.focal / storm.depth * step
    on_its_way = np.abs(moved - expected).max(axis=0) < 1e-6
    turned_round = moved[1] < 0
    assert on_its_way.mean() > 0.6
    # whatever did not move by v dt left the field during the step and came in again elsewhere
    sideways = np.abs(moved[0] - expected[0]) > 1e-6
    assert (on_its_way | turned_round | sideways).all()
    assert (turned_round | sideways).mean() < 0.4


def test_speeds_on_screen_are_those_of_the_pinhole_camera() -> None:
    storm = _storm(replace(SHARP, field_of_view=90.0), shape=(100, 200))
    assert storm.focal == pytest.approx(100.0)
    np.testing.assert_allclose(storm.velocity[1], terminal_velocity(storm.diameter))
    assert (storm.diameter * 1e-3 * storm.focal / storm.depth).min() >= 0.15 - 1e-9


def test_rain_goes_on_without_repeating() -> None:
    storm = _storm()
    moments = [storm.opacity(t) for t in (0.0, 5.0, 60.0, 3600.0)]
    means = [float(moment.mean()) for moment in moments]
    assert max(means) < 1.3 * min(means)
    for i, one in enumerate(moments):
        for other in moments[i + 1 :]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.3
    halves = np.mean([storm.opacity(t) for t in np.arange(20) / 7], axis=0)
    assert halves[:60].mean() == pytest.approx(halves[60:].mean(), rel=0.25)
    assert halves[:, :90].mean() == pytest.approx(halves[:, 90:].mean(), rel=0.25)


def test_any_moment_can_be_asked_for_in_any_order() -> None:
    clean, storm = _scene(), _storm()
    later = storm.frame(clean, 0.5)
    storm.frame(clean, 0.1)
    np.testing.assert_array_equal(storm.frame(clean, 0.5), later)
    np.testing.assert_array_equal(_storm().frame(clean, 0.5), later)
    assert np.abs(_storm(seed=1).frame(clean, 0.5) - later).max() > 0.02
    close = storm.opacity(0.5 + 1e-5)
    assert np.abs(close - storm.opacity(0.5)).max() < 0.02


def test_area_is_kept_by_every_size_of_disc_and_length_of_path() -> None:
    for diameter in (0.5, 2.0, 4.0, 8.0, 15.0, 30.0):
        for way in (0.0, 1.0, 37.0):
            paths = _path(x=120.0, y=100.0, dx=0.2 * way, dy=way, area=0.5, diameter=diameter)
            assert draw_opacity((240, 256), paths, 0.0).sum() == pytest.approx(0.5, rel=0.03)


def test_a_streak_is_where_its_drop_was() -> None:
    for diameter in (0.5, 4.0, 12.0):
        opacity = draw_opacity((96, 96), _path(x=40.0, y=30.0, dx=6.0, dy=24.0, diameter=diameter), 0.0)
        rows, columns = np.mgrid[:96, :96]
        centre = [(opacity * axis).sum() / opacity.sum() for axis in (columns, rows)]
        np.testing.assert_allclose(centre, [43.0, 42.0], atol=0.3)
    thin = draw_opacity((96, 96), _path(x=40.0, y=30.0, dy=24.0), 0.0)
    lit = np.flatnonzero(thin.max(axis=1) > 0.001)
    assert lit[0] == pytest.approx(30, abs=1.5)
    assert lit[-1] == pytest.approx(54, abs=1.5)


def test_a_longer_exposure_draws_longer_and_fainter_streaks() -> None:
    short, long = _storm(replace(SHARP, exposure=1 / 1000)), _storm(replace(SHARP, exposure=1 / 60))
    assert short.opacity(0.0).max() > 1.5 * long.opacity(0.0).max()
    assert short.opacity(0.0).mean() == pytest.approx(long.opacity(0.0).mean(), rel=0.35)


def test_a_drop_crossing_a_pixel_blends_it_toward_the_light() -> None:
    storm = _storm(replace(SHARP, rain_rate=0.0, mist=0.0))
    clean = np.full((120, 180, 3), 0.2, dtype=np.float32)
    storm.opacity = lambda time: np.full((120, 180), 0.05, dtype=np.float32)  # type: ignore[method-assign]
    # E is 8 times the mean brightness: 0.95 * 0.2 + 0.05 * 8 * 0.2
    np.testing.assert_allclose(storm.frame(clean, 0.0), 0.27, atol=1e-5)
    sample = storm.sample(clean, 0.0)
    np.testing.assert_allclose(sample.streaks, 0.07, atol=1e-5)


def test_dry_limit() -> None:
    clean = _scene()
    for dry in (replace(SHARP, rain_rate=0.0, mist=0.0), replace(SHARP, rain_rate=0.0, mist=0.0, drops=0)):
        np.testing.assert_allclose(_storm(dry).frame(clean, 1.0), clean, atol=1e-6)
    no_drops = _storm(replace(SHARP, drops=0, mist=0.02)).sample(clean, 0.0)
    assert not no_drops.streaks.any()
    assert no_drops.transmission.min() < 0.5


def test_mist_thickens_toward_the_horizon() -> None:
    transmission = _storm(replace(SHARP, mist=0.02)).transmission
    assert transmission[0].mean() < transmission[60].mean() < transmission[-1].mean()
    assert 0 < transmission.min() <= transmission.max() <= 1


def test_heavier_rain_shows_more() -> None:
    shown = [
        np.mean([_storm(replace(SHARP, rain_rate=rate, drops=100_000), seed=s).opacity(0.0).mean() for s in range(3)])
        for rate in (5.0, 25.0, 125.0)
    ]
    assert shown[0] < shown[1] < shown[2]


@pytest.mark.parametrize("shape", [(16, 16), (33, 57), (107, 160), (90, 21)])
def test_stills_have_the_shapes_and_ranges_of_a_sample(shape: tuple[int, int]) -> None:
    clean, rng = _scene(*shape), np.random.default_rng(0)
    before = clean.copy()
    for _ in range(6):
        sample = ParticleRain()(clean, rng)
        assert sample.rainy.shape == (*shape, 3)
        assert sample.streaks.shape == sample.transmission.shape == shape
        for array in (sample.rainy, sample.clean, sample.streaks, sample.transmission, sample.airlight):
            assert array.dtype == np.float32
            assert np.isfinite(array).all()
        assert 0 <= sample.rainy.min() <= sample.rainy.max() <= 1
        assert sample.streaks.min() >= 0
    np.testing.assert_array_equal(clean, before)


def test_stills_are_set_by_their_seed() -> None:
    clean = _scene()
    first, again, other = (ParticleRain()(clean, np.random.default_rng(seed)).rainy for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.02


def test_still_statistics() -> None:
    clean, rng = _scene(160, 240), np.random.default_rng(0)
    rain = ParticleRain(ParticleRainConfig())
    psnr = []
    for _ in range(25):
        sample = rain(clean, rng)
        psnr.append(10 * math.log10(1 / max(float(((sample.rainy - clean) ** 2).mean()), 1e-6)))
    assert 18 < np.mean(psnr) < 32
    assert min(psnr) > 7


def test_wrong_storms_and_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="mm/h"):
        StormConfig(rain_rate=-1.0)
    with pytest.raises(UsageError, match="equal sizes"):
        _storm().frame(_scene(64, 64), 0.0)
    with pytest.raises(DataError):
        _storm().frame(np.zeros((120, 180, 3), np.uint8), 0.0)  # type: ignore[arg-type]
