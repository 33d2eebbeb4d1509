"""What both renderers draw from."""

from __future__ import annotations

import math

import numpy as np


def log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """Uniform in the logarithm between two positive bounds: as likely from 1 to 2 as from 10 to 20."""
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))
