"""What the camera and the file format do to a picture of rain, and the hour at which it was taken."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def darken(clean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """The same scene at dusk or night: gamma, exposure and a cooler or sodium-lit white, (H, W, 3) in [0, 1]."""
    dark = np.power(clean, np.float32(rng.uniform(1.0, 1.8)))
    tint = rng.uniform(0.3, 0.7) * (1.0 + rng.uniform(-0.12, 0.12) * np.array([1.0, 0.0, -1.0]))
    for channel in range(3):
        dark[..., channel] *= np.float32(tint[channel])
    return np.asarray(np.clip(dark, 0.0, 1.0), dtype=np.float32)


def soften(picture: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Lose resolution: shrink by ``scale`` in (0, 1] and enlarge again; same shape."""
    height, width = picture.shape[:2]
    small = (max(2, round(width * scale)), max(2, round(height * scale)))
    shrunk = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(enlarged, 0.0, 1.0), dtype=np.float32)


def add_noise(picture: NDArray[np.float32], sigma: float, rng: np.random.Generator) -> None:
    """Add sensor noise in place, stronger in bright places; ``sigma`` at mid grey, in units of white."""
    plane = rng.standard_normal(picture.shape[:2], dtype=np.float32)
    noise = cv2.merge((plane, plane[::-1, :], plane[:, ::-1]))  # mirrored: as good as independent, a third of the time
    deviation = cv2.sqrt(picture + np.float32(0.1))  # of 1 at mid grey after the division below
    cv2.multiply(noise, deviation, dst=noise, scale=sigma / 0.6**0.5)
    picture += noise
    np.clip(picture, 0.0, 1.0, out=picture)


def jpeg(picture: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    """The picture after JPEG compression, (H, W, 3) RGB float32 in [0, 1]."""
    byte = cv2.convertScaleAbs(picture, alpha=255.0)
    _, code = cv2.imencode(".jpg", cv2.cvtColor(byte, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    rgb: NDArray[np.float32] = np.multiply(
        cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.float32(1 / 255), dtype=np.float32
    )
    return rgb
