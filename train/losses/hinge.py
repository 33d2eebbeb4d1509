"""The hinge loss of GANs over score maps; returns a scalar."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.train.networks.blocks import widen


def hinge(scores: Sequence[Tensor], *, real: bool) -> Tensor:
    """``mean(max(0, 1 - s))`` where pictures should pass as real, ``mean(max(0, 1 + s))`` where not; summed over heads.

    DCD-GAN's code takes the first form for its generators too, not the usual ``-mean(s)`` (SYSTEMS.md 3.2).
    """
    sign = -1.0 if real else 1.0
    return torch.stack([F.relu(1 + sign * widen(score)).mean() for score in scores]).sum()


def hinge_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Half the sum of both sides."""
    return 0.5 * (hinge(real, real=True) + hinge(fake, real=False))
