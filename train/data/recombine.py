"""The rain of one pair on the scene of another: new rainy pictures whose rain is real to the pixel.

Where a set of pairs was made by adding grey streaks to a picture (Rain100L, Rain200L and their like), their difference
is the very rain layer, independent of the scene. A few hundred layers and scenes then make tens of thousands of
pictures of the set's own distribution, and a network cannot learn them by heart.
"""

from __future__ import annotations

from functools import reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from derain.train.data.pairs import Pixels

RainLayer = NDArray[np.uint8]

_DARKER_BY = 8
_DARKER_SHARE = 0.01
_COLOURED_BY = 6
_STRENGTH = (0.8, 1.2)


def rain_layer(rainy: Pixels, clean: Pixels) -> RainLayer | None:
    """What was added to every channel alike, (H, W) uint8; None where the rain is not such a sum (fog, hidden scene).

    At least 99 % of the pixels are nowhere more than 8 levels darker than the ground truth (JPEG), and at half of those
    that are not saturated the channels moved alike to 6 levels.

    Args:
        rainy, clean: uint8 (H, W, 3) of one pair.
    """
    planes = [cv2.subtract(r, c, dtype=cv2.CV_16S) for r, c in zip(cv2.split(rainy), cv2.split(clean), strict=True)]
    most, least = reduce(cv2.max, planes), reduce(cv2.min, planes)
    if (least < -_DARKER_BY).mean() > _DARKER_SHARE:
        return None
    moved_alike = (most - least <= _COLOURED_BY)[reduce(cv2.max, cv2.split(rainy)) < 255]
    if moved_alike.size == 0 or moved_alike.mean() < 0.5:
        return None
    # A saturated channel moved by less than was added: the one that moved most tells.
    return np.asarray(np.maximum(most, 0), dtype=np.uint8)


def recombine(layer: RainLayer, scene: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Rainy and clean picture, uint8 (h, w, 3), of the size that scene and layer have in common, cut at random.

    The layer is mirrored half of the time and made up to a fifth weaker or stronger.
    """
    height, width = (min(sides) for sides in zip(layer.shape, scene.shape[:2], strict=True))
    if rng.random() < 0.5:
        layer = layer[:, ::-1]
    layer, scene = (np.ascontiguousarray(_cut(picture, height, width, rng)) for picture in (layer, scene))
    levels = np.minimum(np.rint(np.arange(256) * rng.uniform(*_STRENGTH)), 255).astype(np.uint8)
    added = cv2.LUT(layer, levels)
    return np.asarray(cv2.add(scene, cv2.merge((added, added, added))), dtype=np.uint8), scene


def _cut(picture: NDArray[np.uint8], height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    y = int(rng.integers(picture.shape[0] - height + 1))
    x = int(rng.integers(picture.shape[1] - width + 1))
    return picture[y : y + height, x : x + width]
