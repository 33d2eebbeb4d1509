"""Pictures for the parity check: the user's own, the ones that ship, or ones made here with a natural spectrum."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain.errors import MissingDependencyError
from derain.export.contract import Contract
from derain.images import list_images, read_image
from derain.sizes import Shape

Frame = NDArray[np.uint8]
_COUNT = 3
_SIDE = 512


def parity_pictures(folder: Path | None) -> list[Frame]:
    """Three pictures, uint8 (H, W, 3) BGR.

    Args:
        folder: where to take them from, evenly spread over its list; None: the sample that ships with derain, then
            generated ones.

    Raises:
        DerainError: the folder has no readable pictures.
    """
    if folder is not None:
        files = list_images(folder)
        return [read_image(files[index * len(files) // _COUNT]) for index in range(min(_COUNT, len(files)))]
    pictures = []
    with resources.as_file(resources.files("derain.models")) as shipped:
        for path in sorted(shipped.glob("*.jpg"))[: _COUNT - 1]:
            pictures.append(read_image(path))
    return [*pictures, *(generated_picture(seed) for seed in range(_COUNT - len(pictures)))]


def generated_picture(seed: int, height: int = _SIDE, width: int = _SIDE) -> Frame:
    """A rainy scene in outline: 1/f noise as natural pictures have, flat shapes with hard edges, bright streaks.

    Returns:
        uint8 (``height``, ``width``, 3) BGR, the same for the same seed.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    amplitude = 1.0 / np.maximum(np.hypot(rows, columns), 1.0 / max(height, width))
    planes = []
    shared = random.standard_normal((height, width))
    for _ in range(3):
        noise = 0.8 * shared + 0.2 * random.standard_normal((height, width))
        plane = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real
        planes.append((plane - plane.mean()) / plane.std())
    scene = 118.0 + 45.0 * np.stack(planes, axis=-1)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(6):
        top, left = random.integers(0, height), random.integers(0, width)
        inside = (y >= top) & (y < top + height // 5) & (x >= left) & (x < left + width // 4)
        scene[inside] = 0.3 * scene[inside] + 0.7 * random.uniform(0, 255, 3)
    along = x + 0.3 * y + random.uniform(0, 50)
    streaks = (np.sin(along * 0.7) > 0.96) & (np.sin(y * 0.11 + along * 0.23) > 0.2)
    return np.asarray(np.clip(scene + 60.0 * streaks[..., None], 0, 255).round(), dtype=np.uint8)


def batch_of(pictures: list[Frame], shape: Shape) -> Frame:
    """As many pictures as the shape's batch, resized to it: uint8 (B, H, W, 3) BGR.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("cv2", needed_for="derain export", extra="export") from error
    batch, height, width = shape
    resized = [
        cv2.resize(pictures[index % len(pictures)], (width, height), interpolation=cv2.INTER_AREA)
        for index in range(batch)
    ]
    return np.stack(resized).astype(np.uint8)


def to_contract(frames: Frame, contract: Contract) -> tuple[NDArray[np.generic], ...]:
    """BGR frames (B, H, W, 3) uint8 as the graph's frame inputs.

    For NV12 the sizes must be even; the picture is converted with the contract's own matrix and range.
    """
    if contract.frames == "bgr":
        return (frames,)
    if contract.frames == "rgb":
        return (np.ascontiguousarray(frames[..., ::-1]),)
    if contract.frames == "float":
        return (np.ascontiguousarray(frames[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255),)
    return to_nv12(frames, contract)


def to_nv12(frames: Frame, contract: Contract) -> tuple[Frame, Frame]:
    """BGR frames to the planes y (B, H, W) and uv (B, H/2, W/2, 2), chroma averaged over 2x2 pixels."""
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[contract.matrix]
    offset, span, chroma_span = (16, 219, 224) if contract.colour_range == "limited" else (0, 255, 255)
    blue, green, red = (frames[..., index].astype(np.float64) / 255 for index in range(3))
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    batch, height, width = luma.shape
    chroma = np.stack([u, v], axis=-1).reshape(batch, height // 2, 2, width // 2, 2, 2).mean(axis=(2, 4))
    y = np.clip(np.round(luma * span + offset), 0, 255).astype(np.uint8)
    return y, np.clip(np.round(chroma * chroma_span + 128), 0, 255).astype(np.uint8)
