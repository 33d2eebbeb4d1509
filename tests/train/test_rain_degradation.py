from __future__ import annotations

import numpy as np
import pytest

from derain.errors import DataError
from derain.train.rain.degradation import check_clean, degrade, restore


def _flat(value: float, shape: tuple[int, ...] = (4, 5)) -> np.ndarray:
    return np.full(shape, value, dtype=np.float32)


def test_degrade_by_hand() -> None:
    clean = np.broadcast_to(np.array([0.2, 0.4, 0.6], dtype=np.float32), (4, 5, 3)).copy()
    rainy = degrade(clean, _flat(0.1), _flat(0.5), np.array([0.8, 0.6, 0.4], dtype=np.float32))
    # 0.5 (0.2 + 0.1) + 0.5 * 0.8, 0.5 (0.4 + 0.1) + 0.5 * 0.6, 0.5 (0.6 + 0.1) + 0.5 * 0.4
    assert rainy.dtype == np.float32
    np.testing.assert_allclose(rainy, np.broadcast_to([0.55, 0.55, 0.55], (4, 5, 3)), atol=1e-6)


def test_degrade_takes_a_transmission_for_each_pixel_and_coloured_streaks() -> None:
    rng = np.random.default_rng(0)
    clean, streaks = rng.random((150, 7, 3), dtype=np.float32), rng.random((150, 7, 3), dtype=np.float32) - 0.5
    transmission = rng.uniform(0.1, 1.0, (150, 7)).astype(np.float32)
    airlight = np.array([0.9, 0.5, 0.1], dtype=np.float32)
    expected = transmission[..., None] * (clean + streaks) + (1 - transmission[..., None]) * airlight
    np.testing.assert_allclose(degrade(clean, streaks, transmission, airlight), np.clip(expected, 0, 1), atol=1e-6)


def test_degrade_clips_and_leaves_its_inputs() -> None:
    clean, streaks, transmission = _flat(0.9, (4, 5, 3)), _flat(0.5), _flat(1.0)
    airlight = np.zeros(3, dtype=np.float32)
    assert degrade(clean, streaks, transmission, airlight).max() == 1.0
    assert (clean == np.float32(0.9)).all()
    assert (streaks == 0.5).all()


def test_restore_inverts_degrade() -> None:
    rng = np.random.default_rng(1)
    clean = rng.uniform(0.1, 0.5, (70, 9, 3)).astype(np.float32)
    streaks = rng.uniform(0.0, 0.3, (70, 9)).astype(np.float32)
    transmission = rng.uniform(0.2, 1.0, (70, 9)).astype(np.float32)
    airlight = np.array([0.7, 0.8, 0.9], dtype=np.float32)
    rainy = degrade(clean, streaks, transmission, airlight)
    np.testing.assert_allclose(restore(rainy, streaks, transmission, airlight), clean, atol=2e-6)


def test_restore_by_hand() -> None:
    # J = (0.55 - 0.5 * 0.8) / 0.5 - 0.1
    scene = restore(_flat(0.55, (4, 4, 3)), _flat(0.1, (4, 4)), _flat(0.5, (4, 4)), np.full(3, 0.8, np.float32))
    np.testing.assert_allclose(scene, 0.2, atol=1e-6)


@pytest.mark.parametrize(
    "picture", [np.zeros((8, 8), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((3, 8, 3), np.float32)]
)
def test_what_is_no_picture_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(DataError, match="float32"):
        check_clean(picture)
