"""ARFE at full size: the attentive rain-fog extractor of ACGF and AUEID (SYSTEMS.md 1.3).

A recurrent extractor in the manner of DerainCycleGAN's U-ARSE, three residual blocks instead of five, and in their
place global self-similarity and local discrepancy, which the papers name and do not draw: the realisation is inferred.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from derain.train.networks.blocks import RectifiedBlock, conv3, init_he, local_discrepancy, widen

TOKEN_SIDE = 8
_TOKEN_POOL = 4
_FINE_SIDE = 16 * TOKEN_SIDE
_WINDOW = 7
_TEMPERATURE = 0.1
_FIRST_MASK = 0.5

Attention = Literal["none", "nonlocal_pooled", "cosine_window"]


class ArfeConfig(BaseModel):
    """The defaults are the published size: 138,145 parameters, 835 kMAC per pixel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=32, ge=4, le=256, multiple_of=2)
    iterations: int = Field(default=6, ge=1, le=16)
    blocks: int = Field(default=3, ge=1, le=16, description="residual blocks")
    attn: Attention = Field(
        default="nonlocal_pooled",
        description="self-similarity: none (as in U-ARSE), against 8x8 tokens of the frame, or in a 7x7 window",
    )


def frame_tokens(h: Tensor) -> Tensor:
    """Features (B, C, H, W), H and W multiples of 4, to 8x8 means over the whole frame, (B, C, 8, 8).

    Fixed pooling kernels around a resize to a fixed size, because adaptive pooling of a dynamic size does not export.
    """
    fine = F.interpolate(
        F.avg_pool2d(h, _TOKEN_POOL), size=(_FINE_SIDE, _FINE_SIDE), mode="bilinear", align_corners=False
    )
    return F.avg_pool2d(fine, _FINE_SIDE // TOKEN_SIDE)


class Similarity(nn.Module):
    """The projections of a self-similarity at constant width, in 1x1 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, width // 2, 1)
        self.key = nn.Conv2d(width, width // 2, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.output = nn.Conv2d(width, width, 1)


class PooledSimilarity(Similarity):
    """Non-local attention of every pixel to the frame's 8x8 tokens: linear in the number of pixels."""

    def forward(self, h: Tensor) -> Tensor:
        tokens = frame_tokens(h)
        query = self.query(h).flatten(2).transpose(1, 2)
        key = self.key(tokens).flatten(2)
        value = self.value(tokens).flatten(2).transpose(1, 2)
        weights = torch.softmax(torch.matmul(query, key) * query.shape[-1] ** -0.5, dim=-1)
        mixed = torch.matmul(weights, value).transpose(1, 2).reshape(h.shape)
        out: Tensor = self.output(mixed)
        return out


class WindowSimilarity(Similarity):
    """Attention within a 7x7 window by cosine similarity, at temperature 0.1; a neighbour outside the frame counts 0.

    One shift of the keys at a time: unfolding the window would hold 49 copies of the features.
    """

    def forward(self, h: Tensor) -> Tensor:
        height, width = h.shape[2:]
        query = F.normalize(self.query(h), dim=1)
        margin = [_WINDOW // 2] * 4
        key = F.pad(F.normalize(self.key(h), dim=1), margin)
        value = F.pad(self.value(h), margin)
        places = [(y, x) for y in range(_WINDOW) for x in range(_WINDOW)]
        scores = [(query * key[:, :, y : y + height, x : x + width]).sum(1, keepdim=True) for y, x in places]
        weights = torch.softmax(torch.cat(scores, dim=1) / _TEMPERATURE, dim=1)
        mixed = torch.zeros_like(h)
        for index, (y, x) in enumerate(places):
            mixed = mixed + weights[:, index : index + 1] * value[:, :, y : y + height, x : x + width]
        out: Tensor = self.output(mixed)
        return out


class GlobalLocalAttention(nn.Module):
    """``h + C1[h, global, local]``: global self-similarity and local discrepancy beside the features themselves."""

    def __init__(self, width: int, similarity: nn.Module) -> None:
        super().__init__()
        self.similarity = similarity
        self.discrepancy = nn.Conv2d(width, width, 1)
        self.fuse = nn.Conv2d(3 * width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        parts = [h, self.similarity(h), self.discrepancy(local_discrepancy(h))]
        out: Tensor = h + self.fuse(torch.cat(parts, dim=1))
        return out


class Arfe(nn.Module):
    """Rainy pictures to the rain-fog map F. Six rounds of one set of weights, each shown the last one's map."""

    def __init__(self, config: ArfeConfig) -> None:
        super().__init__()
        width = config.width
        self.iterations = config.iterations
        self.first = conv3(4, width)
        self.gates = conv3(2 * width, 4 * width)
        self.blocks = nn.Sequential(*(RectifiedBlock(width) for _ in range(config.blocks)))
        if config.attn == "none":
            self.attention: nn.Module = nn.Identity()
        else:
            similarity = PooledSimilarity(width) if config.attn == "nonlocal_pooled" else WindowSimilarity(width)
            self.attention = GlobalLocalAttention(width, similarity)
        self.head = conv3(width, 1)
        init_he(self)

    def forward(self, rainy: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of 4, to F (B, 1, H, W) in [0, 1]."""
        picture = rainy * 2 - 1
        mask = torch.full_like(picture[:, :1], _FIRST_MASK)
        x = F.relu(self.first(torch.cat([picture, mask], dim=1)))
        h = cell = torch.zeros_like(x)
        for iteration in range(self.iterations):
            if iteration:
                x = F.relu(self.first(torch.cat([picture, mask], dim=1)))
            keep, write, candidate, show = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(candidate)
            h = torch.sigmoid(show) * torch.tanh(cell)
            mask = torch.sigmoid(widen(self.head(self.attention(self.blocks(h))))).to(picture.dtype)
        return widen(mask)


def receptive_field(config: ArfeConfig) -> int | None:
    """Side in pixels of the square an output pixel depends on; None where tokens show it the whole frame."""
    if config.attn == "nonlocal_pooled":
        return None
    per_round = 2 + 2 + 4 * config.blocks + 2
    per_round += 0 if config.attn == "none" else _WINDOW - 1
    return 1 + config.iterations * per_round
