"""PatchNCE, the contrastive loss between places of two pictures (CUT, ECCV 2020; DCD-GAN, CVPR 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from derain.train.networks.blocks import widen


def patch_nce(query: Tensor, key: Tensor, temperature: float = 0.07) -> Tensor:
    """Each place must be recognised among the places of its own picture: cross entropy over cosine similarities.

    The authors' code copies the similarity of a place to itself into a first column and masks the diagonal with -10;
    that is this cross entropy but for a term exp(-10 / temperature), 1e-62. It draws negatives from the whole batch, in
    runs with batches of one picture; here a picture's negatives are its own, so that a batch may be split.

    Args:
        query: (B, P, C) of unit length.
        key: (B, P, C) of unit length, the same places; no gradient flows into it.

    Returns:
        Scalar, natural logarithm; ``log P`` where the query says nothing.
    """
    similarity = torch.bmm(widen(query), widen(key.detach()).transpose(1, 2)) / temperature
    target = torch.arange(query.shape[1], device=query.device).expand(query.shape[0], -1)
    return F.cross_entropy(similarity.flatten(0, 1), target.flatten())
