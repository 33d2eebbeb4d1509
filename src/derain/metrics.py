"""PSNR and SSIM under named protocols. Figures of different protocols must not be compared.

``y_matlab``: the luma of MATLAB's ``rgb2ycbcr`` on uint8 (BT.601, 16..235, rounded to uint8), the field's usual choice
for deraining. ``rgb``: all three channels; SSIM is the mean of the three channels' values. No border is cropped.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from derain.errors import FrameError, MissingDependencyError, UsageError
from derain.images import require_picture

Protocol = Literal["y_matlab", "rgb"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_PEAK = 255.0
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
_LUMA_BGR = np.array([24.966, 128.553, 65.481]) / 255.0

Planes = NDArray[np.float64]


def luma(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Y of MATLAB's ``rgb2ycbcr`` for uint8: (H, W, 3) BGR to (H, W), values 16..235."""
    return np.floor(bgr @ _LUMA_BGR + 16.5).astype(np.uint8)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8], protocol: Protocol) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 (H, W, 3) BGR pictures; infinity when they are equal.

    Raises:
        FrameError: not pictures, or of different sizes.
        UsageError: an unknown protocol.
    """
    planes_a, planes_b = _planes(a, b, protocol)
    mean_square = float(np.mean((planes_a - planes_b) ** 2))
    return math.inf if mean_square == 0 else 10 * math.log10(_PEAK**2 / mean_square)


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8], protocol: Protocol) -> float:
    """Structural similarity of two uint8 (H, W, 3) BGR pictures, each side at least 11 pixels.

    The definition of Wang et al. 2004 (doi:10.1109/TIP.2003.819861, section III): Gaussian window 11 x 11 with sigma
    1.5, K1 = 0.01, K2 = 0.03, averaged over the positions where the window lies inside the picture.

    Raises:
        FrameError: not pictures, of different sizes, or smaller than the window.
        UsageError: an unknown protocol.
        MissingDependencyError: OpenCV is not installed.
    """
    planes_a, planes_b = _planes(a, b, protocol)
    if min(a.shape[:2]) < _WINDOW:
        raise FrameError(
            f"SSIM of a picture of {a.shape[1]} x {a.shape[0]} pixels", expected=f"at least {_WINDOW} x {_WINDOW}"
        )
    mean_a, mean_b = _blur(planes_a), _blur(planes_b)
    variance_a = _blur(planes_a * planes_a) - mean_a * mean_a
    variance_b = _blur(planes_b * planes_b) - mean_b * mean_b
    covariance = _blur(planes_a * planes_b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    denominator = (mean_a * mean_a + mean_b * mean_b + _C1) * (variance_a + variance_b + _C2)
    # Every channel has as many positions as the others, so this is also the mean of the channels' means.
    return float(np.mean(numerator / denominator))


def _planes(a: NDArray[np.uint8], b: NDArray[np.uint8], protocol: Protocol) -> tuple[Planes, Planes]:
    """Both pictures as float64 (H, W) or (H, W, 3), values 0..255."""
    require_picture(a, "The first picture")
    require_picture(b, "The second picture")
    if a.shape != b.shape:
        raise FrameError(
            f"The pictures to compare have {a.shape[1]} x {a.shape[0]} and {b.shape[1]} x {b.shape[0]} pixels",
            expected="the same size",
        )
    if protocol not in PROTOCOLS:
        raise UsageError(f"There is no metric protocol '{protocol}'", expected="one of " + ", ".join(PROTOCOLS))
    if protocol == "y_matlab":
        return luma(a).astype(np.float64), luma(b).astype(np.float64)
    return a.astype(np.float64), b.astype(np.float64)


def _blur(planes: Planes) -> Planes:
    """Gaussian mean at every position where the window lies inside the picture."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("cv2", needed_for="SSIM", extra="opencv") from error
    kernel = cv2.getGaussianKernel(_WINDOW, _SIGMA)
    edge = _WINDOW // 2
    blurred: Planes = cv2.sepFilter2D(planes, cv2.CV_64F, kernel, kernel)
    return blurred[edge:-edge, edge:-edge]
