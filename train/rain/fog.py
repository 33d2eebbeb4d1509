"""Mist of distant rain: a smooth pseudo-depth, the transmission it gives, and the air light.

The ranges follow 44 published pairs of rain with haze, to which the degradation model was fitted: transmission 0.06 to
0.69 with a mean of 0.41, air light 0.31 to 0.87 and grey.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

TRANSMISSION_FLOOR = 0.06
"""The least transmission drawn, the least found in the published pairs."""


def pseudo_depth(clean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a depth for a picture whose depth is not known, (h, w) float32 with mean 1, on a coarse grid.

    A ground plane that rises to a horizon and a wall of one distance above it, or no horizon but a tilted plane;
    smooth noise stands for objects; in some draws brighter regions are farther (sky, haze in the picture itself).
    """
    height, width = clean.shape[:2]
    rows, columns = max(4, math.ceil(height / 10)), max(4, math.ceil(width / 10))
    y = np.linspace(0.0, 1.0, rows, dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, columns, dtype=np.float32)[None, :]
    if rng.random() < 0.6:
        horizon = rng.uniform(0.0, 0.6)
        nearest = rng.uniform(0.05, 0.4)
        depth = nearest / (np.maximum(y - horizon, 0.0) + nearest) + rng.uniform(-0.2, 0.2) * x
    else:
        depth = 0.7 - rng.uniform(-0.2, 0.7) * (y - 0.5) + rng.uniform(-0.5, 0.5) * x
    for cells in (3, 7):
        knots = rng.normal(0.0, rng.uniform(0.02, 0.14), (cells, cells)).astype(np.float32)
        depth = depth + cv2.resize(knots, (columns, rows), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.35:
        thumbnail = cv2.resize(clean, (columns, rows), interpolation=cv2.INTER_AREA).max(axis=2)
        depth = depth + rng.uniform(0.1, 0.7) * (cv2.GaussianBlur(thumbnail, (3, 3), 0) - thumbnail.mean())
    depth = np.maximum(depth, 0.02)
    return np.asarray(depth / depth.mean(), dtype=np.float32)


def draw_transmission(
    clean: NDArray[np.float32], mean: float, rng: np.random.Generator, unevenness: float = 1.0
) -> NDArray[np.float32]:
    """Transmission ``T = exp(-beta d)`` over a drawn depth.

    Args:
        clean: (H, W, 3) RGB in [0, 1]; gives the size and, in some draws, the depth.
        mean: transmission at the mean depth, in (0, 1].
        rng: the only source of randomness.
        unevenness: 0 puts everything at one distance, 1 keeps the drawn depth.

    Returns:
        (H, W) float32 in [TRANSMISSION_FLOOR, 1].
    """
    height, width = clean.shape[:2]
    depth = 1.0 + unevenness * (pseudo_depth(clean, rng) - 1.0)
    coarse = np.exp(math.log(mean) * np.maximum(depth, 0.0)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(smooth, TRANSMISSION_FLOOR, 1.0), dtype=np.float32)


def draw_airlight(rng: np.random.Generator, low: float = 0.3, high: float = 0.9) -> NDArray[np.float32]:
    """Air light, (3,) float32 RGB: a grey drawn from U(low, high), each channel within about 0.04 of it."""
    grey = rng.uniform(low, high) + rng.normal(0.0, 0.015, 3)
    return np.clip(grey, 0.0, 1.0).astype(np.float32)
