"""The rainy-picture degradation model and what a synthesiser hands back.

``I = T (B + S) + (1 - T) A``: scene ``B``, streaks ``S`` of one brightness for all channels, transmission ``T`` of the
mist between scene and camera, and air light ``A`` (Li et al., Heavy Rain Image Restoration, CVPR 2019, eq. 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.errors import DataError

_BAND = 64
"""Rows computed at once, so that what lies between stays in the cache."""


@dataclass(frozen=True)
class RainSample:
    """One rainy picture and what it was made of; all arrays are float32.

    ``rainy`` equals ``degrade(clean, streaks, transmission, airlight)`` unless the synthesiser also drew streaks that
    hide the scene, or put the result through a camera; ``streaks`` then holds the mean rise over the channels, which
    is what a rain map should show.

    Attributes:
        rainy: (H, W, 3) RGB in [0, 1].
        clean: (H, W, 3) RGB in [0, 1], the target; it differs from the picture given to the synthesiser where that
            also changed the hour (night) or the resolution for both sides, or left light mist in it.
        streaks: (H, W), from 0 upwards: S.
        transmission: (H, W) in (0, 1]: T.
        airlight: (3,) in [0, 1]: A, RGB.
        regime: the name of the kind of rain that was drawn.
    """

    rainy: NDArray[np.float32]
    clean: NDArray[np.float32]
    streaks: NDArray[np.float32]
    transmission: NDArray[np.float32]
    airlight: NDArray[np.float32]
    regime: str


Synthesiser = Callable[[NDArray[np.float32], np.random.Generator], RainSample]
"""Rains on a clean (H, W, 3) RGB picture in [0, 1]; everything random comes from the generator."""


def check_clean(clean: NDArray[np.float32]) -> None:
    """Raise DataError unless ``clean`` is a float32 (H, W, 3) picture of at least 4 x 4 pixels."""
    if clean.dtype != np.float32 or clean.ndim != 3 or clean.shape[2] != 3 or min(clean.shape[:2]) < 4:
        raise DataError(
            f"the picture to rain on has shape {clean.shape} and dtype {clean.dtype}",
            expected="a float32 array (H, W, 3), RGB in [0, 1], of at least 4 x 4 pixels",
            fix="Convert it with (picture / 255).astype(numpy.float32)",
        )


def degrade(
    clean: NDArray[np.float32],
    streaks: NDArray[np.float32],
    transmission: NDArray[np.float32],
    airlight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Apply ``I = T (B + S) + (1 - T) A`` and clip to [0, 1]. Inputs are left as they were.

    Args:
        clean: B, (H, W, 3).
        streaks: S, (H, W), or (H, W, 3) where streaks are coloured or darken a bright scene.
        transmission: T, (H, W).
        airlight: A, (3,).

    Returns:
        I, (H, W, 3) float32.
    """
    rainy = np.empty_like(clean)
    misty = bool(transmission.min() < 1.0)
    air = (*(float(value) for value in airlight), 0.0)
    for top in range(0, clean.shape[0], _BAND):
        band = slice(top, top + _BAND)
        s, t = streaks[band], transmission[band]
        part: NDArray[np.float32] = np.add(clean[band], cv2.merge((s, s, s)) if s.ndim == 2 else s)
        if misty:  # as (B + S - A) T + A: one product less, and OpenCV adds a colour in place quickly
            cv2.subtract(part, air, dst=part)
            cv2.multiply(part, cv2.merge((t, t, t)), dst=part)
            cv2.add(part, air, dst=part)
        np.clip(part, 0.0, 1.0, out=rainy[band])
    return rainy


def restore(
    rainy: NDArray[np.float32],
    streaks: NDArray[np.float32],
    transmission: NDArray[np.float32],
    airlight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Invert :func:`degrade`: ``B = (I - (1 - T) A) / T - S``; exact where nothing was clipped. Not clipped itself."""
    t = transmission[..., None]
    s = streaks if streaks.ndim == 3 else streaks[..., None]
    return np.asarray((rainy - (1.0 - t) * airlight) / t - s, dtype=np.float32)
