"""Scenes with next to nothing in them: a wall, a clear sky, a covered lens. No collection of photographs holds them.

Cameras see them all the same, and a network that never did takes what it likes for rain there.
"""

from __future__ import annotations

import cv2
import numpy as np

from derain.train.data.pairs import Pixels

_BLURRED = 0.4  # share of soft photographs; the others are drawn
_GREY = 0.5  # share of drawn ones without colour
_GRAIN = 3.0  # levels of 255, the strongest


def plain_scene(photograph: Pixels, rng: np.random.Generator) -> Pixels:
    """A plain picture of a photograph's size, uint8 (H, W, 3): itself far out of focus, or one smooth patch of colour.

    Both have a little of a sensor's grain, which is part of the scene: there is no rain in it to take off.
    """
    height, width = photograph.shape[:2]
    if rng.random() < _BLURRED:
        small = cv2.resize(photograph, (int(rng.integers(2, 9)), int(rng.integers(2, 9))), interpolation=cv2.INTER_AREA)
        scene = small.astype(np.float32)
    else:
        level = rng.uniform(0.0, 255.0, 1 if rng.random() < _GREY else 3)
        # Half of them uniform to a level or two, the others with light that falls from one side.
        unevenness = np.exp(rng.uniform(np.log(0.3), np.log(60.0)))
        shading = rng.normal(0.0, unevenness, (*rng.integers(2, 5, 2), 1))
        scene = np.broadcast_to(level + shading, (*shading.shape[:2], 3)).astype(np.float32)
    scene = cv2.resize(scene, (width, height), interpolation=cv2.INTER_CUBIC)
    sigma = max(0.0, rng.uniform(-_GRAIN, _GRAIN))  # none, half of the time
    if sigma > 0:
        scene = scene + sigma * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(scene), 0, 255), dtype=np.uint8)
