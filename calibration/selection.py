"""Choosing calibration frames: few, and as different from each other as the source allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from derain.calibration.descriptors import DRY, Description
from derain.errors import CalibrationError

METHOD = "k-center greedy (farthest point) on content and rain; duplicates by 64-bit perceptual hash"
# Frames are duplicates when so few bits of their hashes differ and their rain and colours (levels) are so alike: a
# standing camera gives one background with ever-changing rain and light.
_NEAR_BITS = 3
_NEAR_RAIN = 0.02
_NEAR_LEVELS = 2.0
# Descriptions held at most; beyond that every second one is dropped, and every second new frame looked at.
_HELD = 100_000
# Pictures are redder than blue on the whole, and bluer above than below (measured in docs/calibration.md). Both must be
# the other way round, and their sum by 3 standard errors over so many frames, to look swapped.
_COLOUR_FRAMES = 12
_COLOUR_ERRORS = 3.0


@dataclass
class Selection:
    """The frames chosen, in the order they were.

    Attributes:
        names: of the frames.
        digests: SHA-256 of their pixels, shortened.
        seen: frames looked at.
        duplicates: of those, dropped as duplicates.
        flat: of those, dropped because they show one colour.
        warnings: one sentence each.
    """

    names: list[str]
    digests: list[str]
    seen: int
    duplicates: int
    flat: int
    warnings: list[str] = field(default_factory=list)


def select(described: Iterable[tuple[str, Description]], count: int) -> Selection:
    """Choose ``count`` frames: the one nearest to the mean first, then always the one farthest from all chosen.

    That is the greedy 2-approximation of the k-center problem (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5).
    Numbers are standardised over the frames first. No chance is involved: the same source gives the same choice.

    Raises:
        CalibrationError: no frames, or all of them show one colour.
    """
    names: list[str] = []
    kept: list[Description] = []
    hashes = np.zeros(0, np.uint64)
    marks = np.zeros((0, 4), np.float64)
    seen = duplicates = flat = 0
    stride = 1
    for name, description in described:
        seen += 1
        if (seen - 1) % stride:
            continue
        if description.flat:
            flat += 1
            continue
        mark = np.array([description.rain / _NEAR_RAIN, *(mean / _NEAR_LEVELS for mean in description.means)])
        near = _bits(hashes ^ np.uint64(description.fingerprint)) <= _NEAR_BITS
        if np.any(near & (np.abs(marks - mark) <= 1).all(axis=1)):
            duplicates += 1
            continue
        names.append(name)
        kept.append(description)
        hashes = np.append(hashes, np.uint64(description.fingerprint))
        marks = np.vstack([marks, mark])
        if len(kept) >= _HELD:
            names, kept, hashes, marks, stride = names[::2], kept[::2], hashes[::2], marks[::2], stride * 2
    if not seen:
        raise CalibrationError("There are no frames to calibrate with", fix="Give --frames FOLDER or VIDEO")
    if not kept:
        raise CalibrationError(
            f"All {seen} frames are constant: each shows one colour", expected="pictures", fix="Check the source"
        )
    order = farthest_points(np.stack([d.vector for d in kept]), kept[0].weights, count)
    chosen = [kept[index] for index in order]
    warnings = _warnings(chosen, kept)
    if len(chosen) < count:
        warnings.append(f"Only {len(chosen)} different frames were found; {count} were asked for.")
    return Selection([names[i] for i in order], [d.digest for d in chosen], seen, duplicates, flat, warnings)


def farthest_points(vectors: NDArray[np.float32], weights: NDArray[np.float32], count: int) -> list[int]:
    """Indices of ``count`` rows (or all, if fewer) by farthest-point traversal in standardised, weighted space."""
    spread = vectors.std(axis=0)
    points = (vectors - vectors.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0) * weights
    chosen = [int(np.argmin(np.square(points).sum(axis=1)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(axis=1))
        chosen.append(int(np.argmax(distance)))
    return chosen


def _bits(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits of each value are set."""
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    return np.asarray(np.unpackbits(octets, axis=1).sum(axis=1), np.int64)


def _warnings(chosen: list[Description], kept: list[Description]) -> list[str]:
    found = []
    if max(d.rain for d in chosen) < DRY:
        found.append(
            "The frames look dry (the extractor finds no rain in any): ranges of rainy frames may be larger, and clip."
        )
    sky, red = np.array([d.sky for d in kept]), np.array([d.means[2] - d.means[0] for d in kept])
    error = (sky + red).std() / np.sqrt(len(kept))
    swapped = (sky + red).mean() < -_COLOUR_ERRORS * error and sky.mean() < 0 and red.mean() < 0
    if len(kept) >= _COLOUR_FRAMES and swapped:
        found.append(
            "The frames may have red and blue swapped (a suspicion): they are bluer than red, and bluer below than "
            "above. They must be ordinary picture or video files, not arrays saved in RGB order by OpenCV."
        )
    return found
