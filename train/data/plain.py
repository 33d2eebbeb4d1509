"""Scenes with next to nothing in them: a wall, a clear sky, a covered lens. No collection of photographs holds them.

Cameras see them all the same, and a network that never did takes what it likes for rain there.
"""

from __future__ import annotations

import cv2
import numpy as np

from derain.train.data.pairs import Pixels

_GREY = 0.6  # share of those without colour
_UNEVEN = (0.3, 45.0)  # standard deviation of the light over the picture, levels of 255
_GRAIN = 3.0  # levels of 255, the strongest


def plain_scene(height: int, width: int, rng: np.random.Generator) -> Pixels:
    """A smooth patch of one colour, uint8 (H, W, 3), half of the time uniform to a level or two.

    A sensor's grain is part of the scene: there is no rain in it to take off. Photographs out of focus were tried as
    well, and are not in it: they look like fog, and a network that leaves them alone leaves fog alone, too.
    """
    level = rng.uniform(0.0, 255.0, 1 if rng.random() < _GREY else 3)
    unevenness = np.exp(rng.uniform(*np.log(_UNEVEN)))
    shading = rng.normal(0.0, unevenness, (*rng.integers(2, 5, 2), 1))
    patches = np.broadcast_to(level + shading, (*shading.shape[:2], 3)).astype(np.float32)
    scene = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    sigma = max(0.0, rng.uniform(-_GRAIN, _GRAIN))  # none, half of the time
    if sigma > 0:
        scene = scene + sigma * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(scene), 0, 255), dtype=np.uint8)
