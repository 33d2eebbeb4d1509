"""Losses as plain functions, one file per family."""

from derain.train.losses.adversarial import lsgan, lsgan_discriminator, lsgan_labels
from derain.train.losses.pixel import charbonnier, gradient_l1, l1, log_mse, one_minus_ssim, total_variation
from derain.train.losses.rain import channel_consistency, rain_strength

__all__ = [
    "channel_consistency",
    "charbonnier",
    "gradient_l1",
    "l1",
    "log_mse",
    "lsgan",
    "lsgan_discriminator",
    "lsgan_labels",
    "one_minus_ssim",
    "rain_strength",
    "total_variation",
]
