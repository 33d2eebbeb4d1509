"""Losses between pictures. Pictures are float (B, C, H, W) in [0, 1]; each function returns a scalar unless said."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from derain.train.networks.blocks import widen


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (a - b).abs().mean()


def charbonnier(a: Tensor, b: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Smooth L1, ``sqrt((a - b)^2 + epsilon^2)``."""
    return torch.sqrt((a - b) ** 2 + epsilon**2).mean()


def log_mse(a: Tensor, b: Tensor, floor: float = 1e-5) -> Tensor:
    """Mean over pictures of ``10 log10(mean squared error + floor)``, in dB: PSNR with its sign turned.

    Every picture counts for its own decibels (Chen et al., HINet, CVPRW 2021). A mean over pixels instead lets a few
    foggy pictures, whose errors are a hundred times larger, drown the rest. It stops at ``-10 log10(floor)``, 50 dB; a
    picture whose error is ``floor`` pulls half as hard as without one.
    """
    squared = (widen(a) - widen(b)).square().flatten(1).mean(1)
    return 10 * torch.log10(squared + floor).mean()


def gradient_l1(a: Tensor, b: Tensor, scales: int = 3) -> Tensor:
    """L1 between horizontal and vertical differences at several scales.

    It ignores a slowly varying offset, so streaks count even where fog dominates the plain difference; it is also the
    stand-in for a perceptual loss when no network weights are at hand (SYSTEMS.md 7.4).
    """
    difference = a - b
    total = difference.new_zeros(())
    for scale in range(scales):
        if scale:
            difference = F.avg_pool2d(difference, 2)
        total = total + (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
        total = total + (difference[..., :, 1:] - difference[..., :, :-1]).abs().mean()
    return total / scales


def one_minus_ssim(a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM, Wang's 11x11 Gaussian of sigma 1.5, the mean over every pixel with mirrored borders (torchmetrics)."""
    # Not in mixed precision: a variance that is a difference of two means would be noise in bf16.
    with torch.autocast(a.device.type, enabled=False):
        value = structural_similarity_index_measure(widen(a), widen(b), data_range=1.0)
    assert isinstance(value, Tensor)
    return 1 - value


def total_variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, both directions summed."""
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean() + (x[..., :, 1:] - x[..., :, :-1]).abs().mean()
