"""Whole-frame context: what a network that sees 68 pixels cannot know, read off a 32x32 thumbnail.

Air light and mean transmission belong to the whole picture. A thumbnail head that predicts them was worth +2.96 dB on
rain with fog for 0.0008 kMAC per pixel (SYSTEMS.md 5.8 and 9.2). Here the same thumbnail also gives the tokens of the
extractor's global self-similarity, so that all the whole-frame knowledge of a network is one short vector: it can be
computed once per frame and handed to every tile, and training on crops sees the tokens of the whole picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.train.networks.blocks import LEAK, conv3, init_he, widen, zero_init

THUMBNAIL_CHANNELS = 9
THUMBNAIL_SIDE = 32
POOL = 4
_FINE_SIDE = THUMBNAIL_SIDE * 4
READING = (POOL, _FINE_SIDE)
"""Side of a thumbnail's cells in pixels, and places along each side of the frame that it is read at."""
_QUERY = 16
_TOKENS = 64
_AFFINE = 6


def thumbnail(frame: Tensor) -> Tensor:
    """Mean, maximum and minimum of each channel on a 32x32 grid over the whole frame.

    The minimum is the dark-channel cue of dehazing. Pooling has fixed kernels and resizing a fixed target, because
    ONNX has no adaptive maximum pooling, and adaptive pooling of a dynamic size does not export.

    Args:
        frame: float (B, 3, H, W) in [0, 1], H and W multiples of 4.

    Returns:
        float32 (B, 9, 32, 32) in [0, 1].
    """
    pooled = torch.cat(
        [F.avg_pool2d(frame, POOL), F.max_pool2d(frame, POOL), -F.max_pool2d(-frame, POOL)],
        dim=1,
    )
    return shrink_pooled(pooled)


def shrink_pooled(pooled: Tensor) -> Tensor:
    """Pooled cells (B, 9, H/4, W/4) to the thumbnail (B, 9, 32, 32)."""
    fine = F.interpolate(pooled, size=(_FINE_SIDE, _FINE_SIDE), mode="bilinear", align_corners=False)
    return F.avg_pool2d(fine, _FINE_SIDE // THUMBNAIL_SIDE)


class FrameContext(nn.Module):
    """Thumbnail to the context vector: a similarity matrix for the extractor and an affine map for the fog head.

    Global self-similarity is the dot product of local queries with 8x8 tokens of the thumbnail, without softmax
    (SYSTEMS.md 5.2): ``out = V K^T q / 64``. So ``V K^T / 64``, a matrix of ``width`` x 16, is all that a pixel needs.
    """

    def __init__(self, width: int, channels: int = 32) -> None:
        super().__init__()
        self.width = width
        self.conv1 = conv3(THUMBNAIL_CHANNELS, channels // 2, stride=2)
        self.conv2 = conv3(channels // 2, channels, stride=2)
        self.conv3 = conv3(channels, channels, stride=2)
        self.key = nn.Conv2d(channels, _QUERY, 1)
        self.value = nn.Conv2d(channels, width, 1)
        self.hidden = nn.Linear(2 * channels, 2 * channels)
        self.affine = nn.Linear(2 * channels, _AFFINE)
        init_he(self)
        zero_init(self.affine)

    @property
    def size(self) -> int:
        return self.width * _QUERY + _AFFINE

    def forward(self, thumb: Tensor) -> Tensor:
        """(B, 9, 32, 32) in [0, 1] to (B, ``size``)."""
        tokens = self._tokens(thumb)
        top = F.leaky_relu(self.conv3(tokens), LEAK)
        # The maximum in float32: its gradient looks for the places that equal it, and in half precision compiled code
        # compares the rounded maximum with values that it did not round, finds none, and divides by nought.
        pooled = torch.cat([top.mean((2, 3)), widen(top).amax((2, 3))], dim=1)
        affine = self.affine(F.leaky_relu(self.hidden(pooled), LEAK))
        return widen(torch.cat([self._similarity(tokens).flatten(1), affine], dim=1))

    def similarity(self, thumb: Tensor) -> Tensor:
        """(B, 9, 32, 32) in [0, 1] to the similarity matrix (B, ``width``, 16): all that the extractor needs."""
        return widen(self._similarity(self._tokens(thumb)))

    def _tokens(self, thumb: Tensor) -> Tensor:
        tokens: Tensor = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(thumb), LEAK)), LEAK)
        return tokens

    def _similarity(self, tokens: Tensor) -> Tensor:
        keys = self.key(tokens).flatten(2)
        values = self.value(tokens).flatten(2)
        return torch.matmul(values, keys.transpose(1, 2)) / _TOKENS

    def split(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """A context vector to its similarity matrix (B, ``width``, 16) and its affine map (B, 6, 1, 1)."""
        similarity = context[:, : self.width * _QUERY].reshape(-1, self.width, _QUERY)
        return similarity, context[:, self.width * _QUERY :].reshape(-1, _AFFINE, 1, 1)


class GlobalSimilarity(nn.Module):
    """Local features attend to the tokens of the whole frame: ``C1((V K^T / 64) C1(h))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, _QUERY, 1)
        self.output = nn.Conv2d(width, width, 1)
        init_he(self)
        zero_init(self.output)

    def forward(self, h: Tensor, similarity: Tensor) -> Tensor:
        query = self.query(h)
        mixed = torch.matmul(similarity.to(query.dtype), query.flatten(2))
        out: Tensor = self.output(mixed.reshape(h.shape))
        return out
