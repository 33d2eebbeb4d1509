"""Counting what a network costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def kmac_per_pixel(network: nn.Module, *inputs: Tensor) -> float:
    """Multiply-accumulates of one forward pass per pixel of the first input, in thousands."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    pixels = inputs[0].shape[0] * inputs[0].shape[2] * inputs[0].shape[3]
    return counter.get_total_flops() / 2 / pixels / 1000
