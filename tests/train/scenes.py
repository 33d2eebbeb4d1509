"""Small pictures with and without streaks: what the tests of training share."""

from __future__ import annotations

import numpy as np


def scene(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 20.0
    planes = [
        120 + 70 * np.sin(y * rng.uniform(0.5, 2) + x * rng.uniform(0.5, 2) + rng.uniform(0, 6)) for _ in range(3)
    ]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def streaked(clean: np.ndarray, seed: int) -> np.ndarray:
    """Bright vertical streaks on a picture."""
    rainy = clean.astype(np.int32)
    rng = np.random.default_rng(seed)
    for _ in range(25):
        y, x = int(rng.integers(0, clean.shape[0] - 10)), int(rng.integers(0, clean.shape[1]))
        rainy[y : y + 10, x] += 80
    return np.clip(rainy, 0, 255).astype(np.uint8)
