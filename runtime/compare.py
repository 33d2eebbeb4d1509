"""Original and result side by side, and the rain map as a picture."""

from __future__ import annotations

import numpy as np

from derain.errors import MissingDependencyError
from derain.runtime.media.items import Picture
from derain.runtime.ports import RainMap

DIVIDER = 4  # pixels; even, so that two equal halves and the divider together stay even for H.264
LABELS = ("rainy", "derained")


def side_by_side(original: Picture, clean: Picture) -> Picture:
    """Both uint8 (H, W, 3) pictures in one of (H, 2 W + ``DIVIDER``, 3), the original on the left, with labels."""
    height, width = original.shape[:2]
    both: Picture = np.full((height, compared_width(width), 3), 255, np.uint8)
    both[:, :width] = original
    both[:, width + DIVIDER :] = clean
    for text, left in zip(LABELS, (0, width + DIVIDER), strict=True):
        _label(both[:, left : left + width], text)
    return both


def compared_width(width: int) -> int:
    """Width of :func:`side_by_side` for pictures of that width."""
    return 2 * width + DIVIDER


def rain_picture(rain: RainMap) -> Picture:
    """A map float32 (H, W) in [0, 1] as uint8 (H, W, 3) grey: white is rain."""
    grey = np.rint(np.clip(rain, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _label(half: Picture, text: str) -> None:
    """White letters with a dark rim in the upper left corner; left out where the picture is too small for them."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("cv2", needed_for="Labelling a comparison", extra="opencv") from error
    height, width = half.shape[:2]
    scale = max(height, 240) / 720
    stroke = max(1, round(1.5 * scale))
    (letters, line), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
    if letters + 2 * line > width or 3 * line > height:
        return
    mask = np.zeros((3 * line, width), np.uint8)
    cv2.putText(mask, text, (line, 2 * line), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, stroke, cv2.LINE_AA)
    # The rim comes from the letters themselves: a thicker stroke is laid out wider by newer OpenCV.
    rim = cv2.dilate(mask, np.ones((3, 3), np.uint8), iterations=stroke)
    background = half[: 3 * line] * (1 - rim[..., None] / np.float32(255))
    half[: 3 * line] = np.rint(np.maximum(background, mask[..., None])).astype(np.uint8)
