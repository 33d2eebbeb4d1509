"""U-ARSE, the unsupervised attentive rain streak extractor of DerainCycleGAN (TIP 2021), at both sizes.

The published text shows dual-path residual-dense blocks; the authors' code, which made the published figures, has plain
residual blocks behind a convolutional LSTM, and that is what this is (SYSTEMS.md 2.1).

The mask has no activation. It is rain in the paper's units, pictures in [-1, 1]: the reconstructive loss asks for
mask + derained = rainy there, so a mask of 1 is rain of half the picture's range.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.train.networks.blocks import MinimalGatedStage, RectifiedBlock, conv3, init_he, widen

GRID = 4
_STEM_KERNEL = 12
_FIRST_MASK = 0.5


class Uarse(nn.Module):
    """The published extractor. Six rounds of one set of weights, each shown the mask of the round before.

    167,809 parameters and 1,004 kMAC per pixel at the default size. The four gates of the LSTM are one convolution.
    """

    def __init__(self, width: int = 32, iterations: int = 6, blocks: int = 5) -> None:
        super().__init__()
        self.iterations = iterations
        self.first = conv3(4, width)
        self.gates = conv3(2 * width, 4 * width)
        self.blocks = nn.Sequential(*(RectifiedBlock(width) for _ in range(blocks)))
        self.head = conv3(width, 1)
        # Radius of a round: the two convolutions before the blocks, two in each block, the head.
        self.receptive_field = 1 + 2 * iterations * (3 + 2 * blocks)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to the mask (B, 1, H, W), not bounded."""
        signed = picture * 2 - 1
        mask = torch.full_like(signed[:, :1], _FIRST_MASK)
        h: Tensor | None = None
        cell: Tensor | None = None
        for _ in range(self.iterations):
            x = F.relu(self.first(torch.cat([signed, mask.to(signed.dtype)], dim=1)))
            h = torch.zeros_like(x) if h is None else h
            write, keep, show, candidate = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
            new = torch.sigmoid(write) * torch.tanh(candidate)
            cell = new if cell is None else torch.sigmoid(keep) * cell + new
            h = torch.sigmoid(show) * torch.tanh(cell)
            mask = widen(self.head(self.blocks(h)))
        return mask


class EdgeUarse(nn.Module):
    """The extractor at edge size: the recurrence is a minimal gated stage on cells of 4x4 pixels, its weights shared.

    The picture comes in again at every stage; the mask does not, because the carried state holds all that it shows.
    """

    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        self.stages = stages
        self.stem = nn.Conv2d(3, width, _STEM_KERNEL, stride=GRID, padding=(_STEM_KERNEL - GRID) // 2)
        self.stage = MinimalGatedStage(width)
        self.head = conv3(width, GRID * GRID)
        init_he(self)
        nn.init.normal_(self.head.weight, std=0.01)
        self.receptive_field = centred_field(1 + stages + 1)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of 4, to the mask (B, 1, H, W), not bounded."""
        h0 = self.stem(picture)
        h = h0
        for _ in range(self.stages):
            h = self.stage(h, h0)
        return F.pixel_shuffle(widen(self.head(h)), GRID)


def centred_field(radius: int) -> int:
    """Side of the square around a pixel that holds its cell's neighbours up to ``radius`` cells away, in pixels."""
    return 2 * (GRID * radius + GRID - 1) + 1
