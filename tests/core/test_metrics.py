"""The metrics against a hand-worked case, another implementation, and a published figure."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from derain.errors import FrameError, UsageError
from derain.images import list_images, read_image
from derain.metrics import luma, psnr, ssim

Picture = NDArray[np.uint8]


def flat(value: int | tuple[int, int, int], height: int = 16, width: int = 20) -> Picture:
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = value
    return picture


@pytest.mark.parametrize(
    ("bgr", "expected"),
    [
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((0, 0, 255), 81),  # 16 + 65.481 = 81.481
        ((0, 255, 0), 145),  # 16 + 128.553 = 144.553
        ((255, 0, 0), 41),  # 16 + 24.966 = 40.966
        ((30, 20, 10), 32),  # 16 + 30*24.966/255 + 20*128.553/255 + 10*65.481/255 = 31.588
    ],
)
def test_luma_is_matlabs(bgr: tuple[int, int, int], expected: int) -> None:
    assert (luma(flat(bgr)) == expected).all()


def test_psnr_worked_by_hand() -> None:
    a, b = flat(100), flat(100)
    b[0, 0, 0] = 110  # one value of 960 off by 10: mean square 100 / 960
    assert psnr(a, b, "rgb") == pytest.approx(10 * math.log10(255**2 * 960 / 100), abs=1e-9)
    # Y of (100,100,100) is 16 + 219*100/255 = 101.88 -> 102; with blue 110 it is 102.86 -> 103: one of 320 off by 1.
    assert psnr(a, b, "y_matlab") == pytest.approx(10 * math.log10(255**2 * 320), abs=1e-9)


def test_equal_pictures(rainy_picture: Picture) -> None:
    for protocol in ("y_matlab", "rgb"):
        assert psnr(rainy_picture, rainy_picture, protocol) == math.inf
        assert ssim(rainy_picture, rainy_picture, protocol) == pytest.approx(1, abs=1e-12)


def test_ssim_of_flat_pictures_worked_by_hand() -> None:
    """Without variance only the luminance term is left: (2ab + C1) / (a^2 + b^2 + C1)."""
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(flat(100), flat(150), "rgb") == pytest.approx(expected, abs=1e-9)


def test_ssim_agrees_with_scikit_image(rainy_picture: Picture) -> None:
    other = np.clip(rainy_picture[:, ::-1] * 0.8 + 20, 0, 255).astype(np.uint8)

    def reference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        _, full = structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True
        )
        return float(full[5:-5, 5:-5].mean())

    assert ssim(rainy_picture, other, "y_matlab") == pytest.approx(
        reference(luma(rainy_picture), luma(other)), abs=1e-9
    )
    channels = [reference(rainy_picture[..., c], other[..., c]) for c in range(3)]
    assert ssim(rainy_picture, other, "rgb") == pytest.approx(np.mean(channels), abs=1e-9)


def test_rain100l_inputs_score_the_known_values(shared_data: Path) -> None:
    folder = shared_data / "Rain100L" / "test"
    rainy, clean = list_images(folder / "rainy"), list_images(folder / "clean")
    assert len(rainy) == len(clean) == 100
    pairs = [(read_image(a), read_image(b)) for a, b in zip(rainy, clean, strict=True)]
    assert np.mean([psnr(a, b, "y_matlab") for a, b in pairs]) == pytest.approx(26.90, abs=0.005)
    assert np.mean([ssim(a, b, "y_matlab") for a, b in pairs]) == pytest.approx(0.838, abs=0.0005)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_bad_arguments_are_named(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FrameError, match="20 x 16 and 21 x 16"):
        measure(flat(0), flat(0, width=21), "rgb")
    with pytest.raises(FrameError, match="second picture has dtype float64"):
        measure(flat(0), flat(0).astype(float), "rgb")
    with pytest.raises(FrameError, match=r"first picture has shape \(16, 20\)"):
        measure(flat(0)[..., 0], flat(0), "rgb")
    with pytest.raises(UsageError, match=r"no metric protocol 'y'.*y_matlab, rgb"):
        measure(flat(0), flat(0), "y")


def test_ssim_needs_its_window() -> None:
    assert ssim(flat(9, 11, 11), flat(9, 11, 11), "rgb") == pytest.approx(1)
    with pytest.raises(FrameError, match="11 x 10 pixels"):
        ssim(flat(9, 10, 11), flat(9, 10, 11), "rgb")
