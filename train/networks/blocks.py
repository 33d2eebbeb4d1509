"""Building blocks shared by the networks of several systems."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.train.networks.reparam import BranchedConv, Reparam, stage_conv

LEAK = 0.1


def conv3(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution, zero-padded so that stride 1 keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation)


def widen(x: Tensor) -> Tensor:
    """At least float32: where half precision would show, in image-space sums, exponentials and means over a frame."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def zero_init(layer: nn.Conv2d | nn.Linear) -> None:
    """Start a layer at zero, so that the branch it ends contributes nothing until it has learned something."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class ResidualStage(nn.Module):
    """``h + C3(LeakyReLU(C3(h + h0)))`` at constant width; called several times it is one recurrent, shared stage.

    The form with ReLU around the sum (SYSTEMS.md 5.1) died within minutes at Adam 1e-3: every unit off, output equal
    to input for ever. This one has a linear path from end to end.
    """

    def __init__(self, channels: int, reparam: Reparam = "none") -> None:
        super().__init__()
        self.first = stage_conv(channels, reparam)
        self.second = stage_conv(channels, reparam)

    def forward(self, h: Tensor, h0: Tensor) -> Tensor:
        update: Tensor = self.second(F.leaky_relu(self.first(h + h0), LEAK))
        return h + update


class MinimalGatedStage(nn.Module):
    """Minimal gated unit: ``z = hard_sigmoid(C3 h)``, ``h + z (ReLU(C3(h + h0)) - h)`` (SYSTEMS.md 5.2).

    The recurrent stage of the attention extractor at edge size. A hard sigmoid and a ReLU in place of sigmoid and
    tanh keep every activation bounded or piecewise linear, which INT8 takes well.
    """

    def __init__(self, channels: int, reparam: Reparam = "none") -> None:
        super().__init__()
        self.gate = stage_conv(channels, reparam)
        self.candidate = stage_conv(channels, reparam)

    def forward(self, h: Tensor, h0: Tensor) -> Tensor:
        gate = F.hardsigmoid(self.gate(h))
        return h + gate * (F.relu(self.candidate(h + h0)) - h)


class RectifiedBlock(nn.Module):
    """The residual block of the published extractors: ``ReLU(x + ReLU(C3(ReLU(C3 x))))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv3(width, width)
        self.second = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + F.relu(self.second(F.relu(self.first(x)))))


def local_discrepancy(h: Tensor) -> Tensor:
    """``h - avg5x5(h)``: what differs from its neighbourhood, the simplest statement of JCA's local discrepancy."""
    return h - F.avg_pool2d(h, 5, stride=1, padding=2, count_include_pad=False)


def init_he(module: nn.Module) -> None:
    """He initialisation for LeakyReLU networks, biases at zero; of a branched convolution one branch speaks."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=LEAK)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in module.modules():
        if isinstance(layer, BranchedConv):
            layer.quieten()
