"""What a frame looks like, in few numbers: content, rain strength, and a hash by which duplicates are known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.runtime.ports import Picture, RainMap

# Weight of a group of numbers in the distance between two frames, after each number was standardised.
_CONTENT, _RAIN = 1.0, 2.0
_GRID = 4
# A frame with less rain than this, see :func:`rain_strength`, shows none.
DRY = 0.05


@dataclass(frozen=True)
class Description:
    """A frame as the selection sees it.

    Attributes:
        vector: float32; content first (light on a 4x4 grid, colour, contrast, detail), then rain (the extractor's map,
            haze, and how much finer detail runs across than along).
        weights: of the vector's numbers, float32.
        rain: 95th percentile of the extractor's map, 0 to 1: streaks cover little of a frame.
        fingerprint: 64 bits, of the picture's coarse content; near pictures differ in few.
        digest: SHA-256 of the pixels and their size, first 16 hexadecimal digits.
        means: of the channels B, G, R, of 255.
        sky: how much bluer (B - R, levels) the upper third is than the lower.
        flat: whether the whole frame is nearly one colour.
    """

    vector: NDArray[np.float32]
    weights: NDArray[np.float32]
    rain: float
    fingerprint: int
    digest: str
    means: tuple[float, float, float]
    sky: float
    flat: bool


def describe(frame: Picture, rain: RainMap) -> Description:
    """Describe a uint8 (H, W, 3) BGR frame, given its rain map, float32 of any size, in [0, 1]."""
    small = cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = np.asarray(small @ np.array([0.114, 0.587, 0.299], np.float32), np.float32)
    cells = grey.reshape(_GRID, 128 // _GRID, _GRID, 128 // _GRID).mean(axis=(1, 3))
    fine = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32)
    across = float(np.abs(np.diff(fine, axis=1)).mean()) if fine.shape[1] > 1 else 0.0
    along = float(np.abs(np.diff(fine, axis=0)).mean()) if fine.shape[0] > 1 else 0.0
    blue, green, red = (float(value) for value in small.reshape(-1, 3).mean(axis=0))
    content = [*cells.ravel() / 255, (blue - green) / 64, (red - green) / 64, grey.std() / 64, np.log1p(across + along)]
    dark = cv2.erode(small.min(axis=2), np.ones((9, 9), np.uint8))
    strength = rain_strength(rain)
    wet = [float(rain.mean()), strength, float(rain.std()), float(dark.mean()) / 255, (across - along) / 16]
    warm = small[..., 0] - small[..., 2]
    return Description(
        np.array([*content, *wet], np.float32),
        np.array([_CONTENT] * len(content) + [_RAIN] * len(wet), np.float32),
        strength,
        _fingerprint(grey),
        digest(frame),
        (blue, green, red),
        float(warm[:43].mean() - warm[-43:].mean()),
        bool(fine.std() < 1.0),
    )


def rain_strength(rain: RainMap) -> float:
    """95th percentile of the extractor's map, 0 to 1: streaks cover little of a frame."""
    return float(np.percentile(rain, 95))


def digest(frame: Picture) -> str:
    """SHA-256 of a frame's size and pixels, first 16 hexadecimal digits."""
    return hashlib.sha256(repr(frame.shape).encode() + np.ascontiguousarray(frame).tobytes()).hexdigest()[:16]


def _fingerprint(grey: NDArray[np.float32]) -> int:
    """Perceptual hash: the signs, about their median, of the 64 lowest frequencies of a 32x32 cosine transform."""
    coarse = cv2.dct(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA))[:8, :8].ravel()
    bits = coarse > np.median(coarse[1:])
    return int("".join("1" if bit else "0" for bit in bits), 2)
