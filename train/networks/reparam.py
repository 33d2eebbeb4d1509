"""3x3 convolutions that train as several parallel branches and deploy as one (SYSTEMS.md 5.5).

``repvgg``: a 3x3, a 1x1 and an identity branch (Ding et al., RepVGG, CVPR 2021), without batch normalisation.
``ecbsr``: a 3x3 branch; a 1x1 that widens before a 3x3; and a 1x1 before each of Sobel-x, Sobel-y and Laplacian with
learned strength (Zhang et al., ECBSR, ACM MM 2021).

Every branch is linear in its input, so their sum is one 3x3 convolution, exactly: see :meth:`BranchedConv.fold`. At
the start only the 3x3 branch speaks, so a network begins as it would without the branches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Reparam = Literal["none", "repvgg", "ecbsr"]

_WIDEN = 2
_MASKS = {
    "sobel_x": ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),
    "sobel_y": ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
    "laplacian": ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),
}


class BranchedConv(nn.Module, ABC):
    """A 3x3 convolution of constant width, zero-padded, in branches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Conv2d(channels, channels, 3, padding=1)

    @abstractmethod
    def quieten(self) -> None:
        """Start the other branches at zero output, in a way that lets them learn."""

    @abstractmethod
    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """The sum of the branches as one 3x3 kernel (C, C, 3, 3) and bias (C,)."""

    def fold(self) -> nn.Conv2d:
        """The one convolution that gives the same output, borders included."""
        kernel, bias = self.kernel_and_bias()
        folded = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1, device=kernel.device, dtype=kernel.dtype)
        with torch.no_grad():
            folded.weight.copy_(kernel)
            assert folded.bias is not None
            folded.bias.copy_(bias)
        return folded.train(self.training)


class RepVggConv(BranchedConv):
    """``C3(x) + C1(x) + s * x``, with a strength s a channel that starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.point = nn.Conv2d(channels, channels, 1, bias=False)
        self.identity = nn.Parameter(torch.zeros(channels))
        self.quieten()

    def quieten(self) -> None:
        nn.init.zeros_(self.point.weight)
        nn.init.zeros_(self.identity)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x) + self.point(x) + self.identity[:, None, None] * x
        return out

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        centre = self.point.weight + torch.diag(self.identity)[:, :, None, None]
        assert self.main.bias is not None
        return self.main.weight + F.pad(centre, (1, 1, 1, 1)), self.main.bias


class EcbsrConv(BranchedConv):
    """``C3(x) + C3(C1(x)) + sum of s * mask(C1(x))`` over Sobel-x, Sobel-y and Laplacian.

    What the second convolution sees beyond the border is the widening 1x1's answer to zero, its bias, not zero: only
    so does the branch equal one 3x3 convolution at the border too. So the picture is padded before the 1x1.
    """

    masks: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen = nn.Conv2d(channels, _WIDEN * channels, 1)
        self.squeeze = nn.Conv2d(_WIDEN * channels, channels, 3)
        # No bias: each mask's values sum to zero and would cancel it.
        self.points = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in _MASKS)
        self.strengths = nn.Parameter(torch.zeros(len(_MASKS), channels))
        self.offsets = nn.Parameter(torch.zeros(len(_MASKS), channels))
        self.register_buffer("masks", torch.tensor(list(_MASKS.values())), persistent=False)
        self.quieten()

    def quieten(self) -> None:
        nn.init.zeros_(self.squeeze.weight)
        assert self.squeeze.bias is not None
        nn.init.zeros_(self.squeeze.bias)
        nn.init.zeros_(self.strengths)
        nn.init.zeros_(self.offsets)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1))
        out: Tensor = self.main(x) + self.squeeze(self.widen(padded))
        for point, mask, strength, offset in zip(self.points, self.masks, self.strengths, self.offsets, strict=True):
            kernel = strength[:, None, None, None] * mask
            out = out + F.conv2d(point(padded), kernel, offset, groups=len(strength))
        return out

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        assert self.main.bias is not None
        kernel, bias = self.main.weight, self.main.bias
        first, second = _dense(self.widen), _dense(self.squeeze)
        kernel = kernel + torch.einsum("omyx,mi->oiyx", second[0], first[0][:, :, 0, 0])
        bias = bias + second[1] + second[0].sum((2, 3)) @ first[1]
        for point, mask, strength, offset in zip(self.points, self.masks, self.strengths, self.offsets, strict=True):
            assert isinstance(point, nn.Conv2d)
            kernel = kernel + (strength[:, None] * point.weight[:, :, 0, 0])[:, :, None, None] * mask
            bias = bias + offset
        return kernel, bias


def _dense(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight, layer.bias


def stage_conv(channels: int, reparam: Reparam) -> nn.Conv2d | BranchedConv:
    """The 3x3 convolution of a stage."""
    if reparam == "repvgg":
        return RepVggConv(channels)
    if reparam == "ecbsr":
        return EcbsrConv(channels)
    return nn.Conv2d(channels, channels, 3, padding=1)


def fold_branches(network: nn.Module) -> None:
    """Put one convolution in the place of every :class:`BranchedConv` inside ``network``."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BranchedConv):
                setattr(parent, name, child.fold())
