"""ReMAEN's edge loss (SYSTEMS.md 4.2). Pictures are float (B, 3, H, W) RGB in [0, 1]; a loss is a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_GREY = (0.2989, 0.5870, 0.1140)


def laplacian_edges(picture: Tensor) -> Tensor:
    """Bright sides of edges, (B, 1, H, W): ReLU of the eight-neighbour Laplacian of grey, zero outside the picture."""
    grey = (picture * picture.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
    # 9 x the centre less the sum over 3x3, zeros included: the kernel with 8 amid eight -1.
    return F.relu(9 * grey - 9 * F.avg_pool2d(grey, 3, stride=1, padding=1))


def edge_loss(derained: Tensor, clean: Tensor) -> Tensor:
    """Mean squared difference of the edges."""
    return torch.mean((laplacian_edges(derained) - laplacian_edges(clean)) ** 2)
