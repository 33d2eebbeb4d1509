"""Least-squares GAN losses over lists of score maps; each returns a scalar."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from derain.train.networks.blocks import widen


def lsgan(scores: Sequence[Tensor], target: float, weights: Sequence[float] | None = None) -> Tensor:
    """Least-squares GAN loss ``mean((score - target)^2)``, summed over heads with ``weights`` (all 1 when None)."""
    weights = weights if weights is not None else [1.0] * len(scores)
    if len(weights) != len(scores):
        raise ValueError(f"{len(scores)} score maps, {len(weights)} weights")
    total = scores[0].new_zeros((), dtype=torch.float32)
    for score, weight in zip(scores, weights, strict=True):
        total = total + weight * ((widen(score) - target) ** 2).mean()
    return total


def lsgan_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    """Half the sum of real-to-1 and fake-to-0."""
    return 0.5 * (lsgan(real, 1.0, weights) + lsgan(fake, 0.0, weights))


def lsgan_labels(scores: Sequence[Tensor], labels: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Least-squares loss of auxiliary heads against what their pictures are known to hold.

    Args:
        scores: one map (B, 1, h, w) a label.
        labels: (B, len(scores)); 1, 0, or NaN where it is not known, which counts as no error.

    Returns:
        The mean over all pictures, summed over heads with ``weights`` (all 1 when None).
    """
    weights = weights if weights is not None else [1.0] * len(scores)
    total = scores[0].new_zeros((), dtype=torch.float32)
    for score, label, weight in zip(scores, labels.unbind(1), weights, strict=True):
        known = ~label.isnan()
        errors = ((widen(score) - label.nan_to_num()[:, None, None, None]) ** 2).mean((1, 2, 3))
        total = total + weight * (errors * known).mean()
    return total
