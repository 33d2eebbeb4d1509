"""Streaks as motion-blurred noise: impulses in a frame turned so that they fall straight down, blurred, turned back.

The blur along the fall costs the same for every length: each impulse enters a running sum at its top and leaves it at
its bottom, so every drop has a length of its own. Long streaks change slowly along the fall, so the turned frame is
kept coarser in that direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StreakLayer:
    """One layer of drops at about one distance from the camera.

    Attributes:
        coverage: mean light of the layer in units of ``brightness``, about the share of the picture that streaks cover
            while they do not overlap, from 0 upwards.
        length: mean length in pixels.
        length_spread: standard deviation of the logarithm of the drops' lengths.
        width: standard deviation of the streak's Gaussian profile in pixels (1.0 is 2.4 pixels wide at half height).
        angle: fall direction in degrees from vertical; positive leans to the right on the way down.
        brightness: brightness of a typical drop, in units of full white.
        brightness_spread: shape of the gamma distribution of the drops' brightness is ``1 / brightness_spread**2``.
        convergence: how far the streaks fan out across the picture, as perspective does; 0 keeps them parallel.
        beads: how much of its light a streak loses in the darkest places along it, from 0 (even) to 1: drops swing as
            they fall, and what they mirror changes on the way.
    """

    coverage: float
    length: float
    length_spread: float
    width: float
    angle: float
    brightness: float
    brightness_spread: float
    convergence: float
    beads: float = 0.0


@dataclass(frozen=True)
class VeilLayer:
    """A dense texture of distant streaks: thresholded Gaussian-like noise blurred along the fall.

    Attributes:
        length: blur length in pixels.
        angle: as in :class:`StreakLayer`.
        threshold: in standard deviations of the blurred noise; what is below is dry.
        brightness: brightness of noise one standard deviation above the threshold.
    """

    length: float
    angle: float
    threshold: float
    brightness: float


class _FallFrame:
    """A frame turned by the fall angle, ``step`` picture pixels per row, large enough to cover the picture."""

    def __init__(self, shape: tuple[int, int], angle: float, step: float, convergence: float = 0.0) -> None:
        self.height, self.width = shape
        sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
        self.columns = math.ceil(self.width * cosine + self.height * abs(sine)) + 2
        self.rows = math.ceil((self.height * cosine + self.width * abs(sine)) / step) + 2
        across = self.height * max(sine, 0.0) + 1.0
        along = self.width * max(-sine, 0.0) + 1.0
        self._map = np.array(
            [[cosine, -sine, across], [sine / step, cosine / step, along / step], [0.0, 0.0, 1.0]], dtype=np.float64
        )
        if convergence:
            self._map[2, 1] = convergence / self.height
            self._map[0] += self.columns / 2 * self._map[2] * np.array([0.0, 1.0, 0.0])
        self._fans = bool(convergence)

    def to_picture(self, fall: NDArray[np.float32]) -> NDArray[np.float32]:
        size = (self.width, self.height)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        if self._fans:
            turned = cv2.warpPerspective(fall, self._map, size, flags=flags, borderMode=cv2.BORDER_REFLECT)
        else:
            turned = cv2.warpAffine(fall, self._map[:2], size, flags=flags, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(turned, dtype=np.float32)


def _profile(width: float) -> NDArray[np.float32]:
    """Gaussian cross-section of unit height; a streak thinner than a pixel loses light instead of width."""
    sigma = max(width, 0.45)
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    return (min(1.0, width / 0.45) * np.exp(-0.5 * (offsets / sigma) ** 2)).astype(np.float32)


def draw_streaks(shape: tuple[int, int], layer: StreakLayer, rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness of one layer of drops over a dry, black picture.

    Args:
        shape: (H, W).
        layer: what to draw.
        rng: the only source of randomness.

    Returns:
        (H, W) float32, from 0 upwards.
    """
    step = min(4.0, max(1.0, layer.length / 8.0))
    frame = _FallFrame(shape, layer.angle, step, layer.convergence)
    area = (frame.rows * step + layer.length) * frame.columns  # drops that enter from above are drawn too
    count = int(rng.poisson(layer.coverage * area / (layer.length * 2.4 * max(layer.width, 0.45))))
    if count == 0:
        return np.zeros(shape, dtype=np.float32)
    lengths = layer.length / step * np.exp(rng.normal(0.0, layer.length_spread, count))
    rows = np.maximum(lengths.astype(np.int64), 1)
    top = rng.integers(-int(layer.length / step), frame.rows, count)
    bottom = np.minimum(top + rows, frame.rows)
    top = np.clip(top, 0, frame.rows)
    column = rng.integers(0, frame.columns, count)
    shape_parameter = 1.0 / layer.brightness_spread**2
    light = (layer.brightness / shape_parameter * rng.gamma(shape_parameter, size=count)).astype(np.float32)

    fall = np.zeros((frame.rows + 1, frame.columns), dtype=np.float32)
    np.add.at(fall, (top, column), light)
    np.subtract.at(fall, (np.maximum(bottom, top), column), light)
    for row in range(1, frame.rows):
        np.add(fall[row], fall[row - 1], out=fall[row])  # whole rows at a time: several times faster than cumsum(0)
    fall = fall[: frame.rows]
    np.maximum(fall, 0.0, out=fall)  # the running sum leaves rounding errors of either sign

    if layer.beads:
        fall *= _beads(fall.shape, layer, step, rng)
    soft = max(1, round(0.3 * layer.length / step))
    ends = _profile(layer.width / step)  # a drop out of focus is soft on all sides
    along = np.convolve(np.full(soft, 1.0 / soft), ends / ends.sum()).astype(np.float32)
    fall = cv2.sepFilter2D(fall, cv2.CV_32F, _profile(layer.width), along, borderType=cv2.BORDER_REFLECT)
    return frame.to_picture(fall)


def _beads(shape: tuple[int, int], layer: StreakLayer, step: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """What each place along a streak keeps of its light, (rows, columns) from ``1 - beads`` to 1."""
    rows, columns = shape
    period = max(2.0, layer.length * rng.uniform(0.1, 0.5)) / step
    across = max(1.0, 3.0 * layer.width)  # a streak is dark over its whole width
    knots = rng.random((max(2, math.ceil(rows / period)), max(2, math.ceil(columns / across))), dtype=np.float32)
    kept = cv2.resize(knots, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.asarray(1.0 - np.float32(layer.beads) * kept, dtype=np.float32)


def draw_veil(shape: tuple[int, int], layer: VeilLayer, rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness of a dense layer of far streaks (after the generator of Li et al., CVPR 2019), (H, W) float32 >= 0."""
    step = min(4.0, max(1.0, layer.length / 6.0))
    frame = _FallFrame(shape, layer.angle, step)
    noise = rng.integers(0, 256, (frame.rows, frame.columns), dtype=np.uint8)
    rows = max(1, round(layer.length / step))
    fall = cv2.boxFilter(noise, cv2.CV_32F, (1, rows), borderType=cv2.BORDER_REFLECT_101)
    deviation = 73.9 / math.sqrt(rows)  # of the mean of `rows` uniform bytes
    gain = layer.brightness / deviation
    fall *= gain
    fall -= gain * 127.5 + layer.brightness * layer.threshold
    np.maximum(fall, 0.0, out=fall)
    return frame.to_picture(fall)
