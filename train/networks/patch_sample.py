"""Feature samples for the contrastive loss: CUT's PatchSampleF, as DCD-GAN uses it (SYSTEMS.md 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from derain.train.networks.blocks import widen

_EPSILON = 1e-7


def draw_places(features: Sequence[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
    """For each feature map (B, C, H, W), up to ``count`` different places, int64 indices into H * W.

    All pictures of a batch share them, as in the authors' code; so several processes with one ``generator`` agree.
    """
    places = []
    for feature in features:
        size = feature.shape[2] * feature.shape[3]
        places.append(torch.randperm(size, generator=generator)[:count].to(feature.device))
    return places


class PatchProjection(nn.Module):
    """A two-layer perceptron for each tapped feature map; what comes out has unit length."""

    def __init__(self, channels: Sequence[int], size: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, size), nn.ReLU(), nn.Linear(size, size)) for inputs in channels
        )

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps (B, C, H, W) and places (P,) to samples (B, P, size) for each map."""
        samples = []
        for head, feature, place in zip(self.heads, features, places, strict=True):
            sample = widen(head(feature.flatten(2)[:, :, place].transpose(1, 2)))
            samples.append(sample / (torch.linalg.vector_norm(sample, dim=-1, keepdim=True) + _EPSILON))
        return samples
