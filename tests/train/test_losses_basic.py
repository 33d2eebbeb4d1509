"""Pixel, adversarial and rain losses against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from derain.train import losses
from derain.train.losses.adversarial import lsgan_labels


def picture(*rows: list[float]) -> Tensor:
    """One channel, (1, 1, H, W)."""
    return torch.tensor(rows)[None, None]


def test_l1_and_charbonnier() -> None:
    a, b = picture([0.0, 0.3]), picture([0.0, 0.7])
    assert float(losses.l1(a, b)) == pytest.approx(0.2)
    assert float(losses.charbonnier(a, b, 0.3)) == pytest.approx((0.3 + 0.5) / 2)  # sqrt(0.16 + 0.09) = 0.5


def test_log_mse_counts_every_picture_for_itself() -> None:
    """Errors of 0.1 and 0.01: 20 and 40 dB. A mean over all pixels would be 23 dB, and not see the second."""
    a = torch.zeros(2, 3, 4, 4)
    b = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert float(losses.log_mse(a, b, floor=0.0)) == pytest.approx(-30.0, abs=1e-4)
    assert float(losses.log_mse(a, a)) == pytest.approx(-50.0, abs=1e-4)  # the floor: equal pictures have a slope of 0
    for floor, ratio in ((0.0, 10.0), (1e-4, 10 * (0.01 + 1e-4) / 0.01 / 2)):  # at 40 dB half of the pull is left
        b = b.detach().requires_grad_()
        losses.log_mse(a, b, floor=floor).backward()
        assert b.grad is not None
        strong, weak = (float(part.abs().sum()) for part in b.grad)
        assert weak == pytest.approx(ratio * strong, rel=1e-4)


def test_gradient_l1_at_two_scales() -> None:
    """Four flat squares of 2x2 pixels, 0, 4 above 8, 4: steps between squares only; at half the size, four pixels."""
    a = picture([0.0, 4.0], [8.0, 4.0]).repeat_interleave(2, 2).repeat_interleave(2, 3)
    b = torch.zeros_like(a)
    fine = (2 * 8 + 2 * 0) / 12 + (2 * 4 + 2 * 4) / 12
    coarse = (8 + 0) / 2 + (4 + 4) / 2
    assert float(losses.gradient_l1(a, b, scales=1)) == pytest.approx(fine)
    assert float(losses.gradient_l1(a, b, scales=2)) == pytest.approx((fine + coarse) / 2)


def test_gradient_l1_does_not_see_an_offset() -> None:
    a = torch.rand(1, 3, 16, 16)
    assert float(losses.gradient_l1(a + 0.2, a)) == pytest.approx(0.0, abs=1e-6)


def test_ssim_against_scikit_image() -> None:
    rng = np.random.default_rng(1)
    a = rng.random((48, 40)).astype(np.float64)
    b = np.clip(a + rng.normal(0, 0.1, a.shape), 0, 1)
    padded = [np.pad(x, 5, mode="reflect") for x in (a, b)]  # ours takes the mean over the mirrored border too
    _, full = structural_similarity(
        *padded, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    ours = losses.one_minus_ssim(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    assert float(ours) == pytest.approx(1 - full[5:-5, 5:-5].mean(), abs=1e-6)


def test_ssim_is_not_computed_in_bfloat16() -> None:
    """A variance as a difference of means would be noise in bf16: mixed precision must not reach it."""
    a = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    b = (a + 0.02).clamp(0, 1)
    expected = losses.one_minus_ssim(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(losses.one_minus_ssim(a, b), expected)


def test_total_variation() -> None:
    x = picture([0.0, 1.0, 1.0], [2.0, 2.0, 5.0])
    assert float(losses.total_variation(x)) == pytest.approx((2 + 1 + 4) / 3 + (1 + 0 + 0 + 3) / 4)


def test_lsgan_sums_weighted_heads() -> None:
    scores = [picture([0.0, 2.0]), picture([0.5])]
    assert float(losses.lsgan(scores, 1.0)) == pytest.approx(1.0 + 0.25)
    assert float(losses.lsgan(scores, 1.0, [1.0, 0.5])) == pytest.approx(1.0 + 0.125)
    with pytest.raises(ValueError, match="2 score maps, 1 weights"):
        losses.lsgan(scores, 1.0, [1.0])


def test_lsgan_discriminator_is_half_of_both_sides() -> None:
    real, fake = [picture([0.0])], [picture([3.0])]
    assert float(losses.lsgan_discriminator(real, fake, None)) == pytest.approx(0.5 * (1 + 9))


def test_labels_count_only_where_they_are_known() -> None:
    rain = torch.tensor([0.0, 0.5, 9.0, 1.0]).view(4, 1, 1, 1)
    fog = torch.tensor([1.0, 0.0, 9.0, 9.0]).view(4, 1, 1, 1)
    nobody = math.nan
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [nobody, nobody], [1.0, nobody]])
    assert float(lsgan_labels([rain, fog], labels)) == pytest.approx((1 + 0.25) / 4 + 1 / 4)
    assert float(lsgan_labels([rain, fog], labels, [0.5, 0.0])) == pytest.approx(0.5 * 1.25 / 4)
    fog.requires_grad_(True)
    lsgan_labels([rain, fog], labels).backward()  # type: ignore[no-untyped-call]
    assert fog.grad is not None
    assert fog.grad.flatten().tolist() == [0.5, 0.0, 0.0, 0.0]


def test_rain_strength_is_the_largest_change_of_a_channel() -> None:
    clean = torch.zeros(1, 3, 1, 3)
    rainy = clean.clone()
    rainy[0, :, 0, 0] = torch.tensor([0.1, 0.2, 0.05])
    rainy[0, :, 0, 1] = torch.tensor([-0.3, 0.1, 0.0])
    rainy[0, :, 0, 2] = 0.8
    assert losses.rain_strength(rainy, clean).flatten().tolist() == pytest.approx([0.4, 0.6, 1.0])


def test_channel_consistency() -> None:
    rain = torch.tensor([0.5, 0.3, 0.4]).view(1, 3, 1, 1)
    assert float(losses.channel_consistency(rain)) == pytest.approx(0.2 + 0.1)
    assert float(losses.channel_consistency(rain.mean(1, keepdim=True).expand(1, 3, 1, 1))) == 0.0
