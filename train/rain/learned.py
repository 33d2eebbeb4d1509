"""Rain that a trained system puts on clean pictures: the by-product of a cycle (DerainCycleGAN's Rain200A)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from derain.files import file_sha256
from derain.images import list_images, read_image
from derain.train.checkpoint import load_system
from derain.train.rain.degradation import RainSample, check_clean

_GRID = 16  # of crops in training, which every system takes
_LEAST_LEVELS = 1.0


class LearnedRain:
    """A :data:`Synthesiser`: the rain of a drawn rainy picture, put on the clean one by a checkpoint's rain maker.

    The rainy picture keeps its scale: of a larger one a piece is drawn, a smaller one is mirrored at its edges. What a
    network cannot split into parts is the mean rise over the channels, ``streaks`` of the sample; its ``regime`` is
    the name of the rainy picture.

    Args:
        checkpoint: of a system with a rain maker, such as ACGF or DerainCycleGAN.
        rainy: folder of rainy pictures; no ground truth is needed.

    Attributes:
        origin: name and SHA-256 of the checkpoint, for a manifest.

    Raises:
        CheckpointError: the file cannot be used.
        DataError: the folder holds no pictures.
        UsageError: when called, where the checkpoint's system makes no rain.
    """

    def __init__(self, checkpoint: str | Path, rainy: str | Path) -> None:
        self._system, recipe = load_system(checkpoint)
        self.origin = {"checkpoint": recipe.name, "sha256": file_sha256(checkpoint)}
        self._guides = list_images(rainy)
        self._changes: list[float] = []

    def complaint(self) -> str | None:
        """What is to be said of rain so weak that a set of it would teach a network to do nothing."""
        mean = float(np.mean(self._changes)) * 255 if self._changes else 0.0
        if mean >= _LEAST_LEVELS:
            return None
        return (
            f"Warning: this rain changes the pictures by {mean:.2f} of 255 levels on average: the rain maker of "
            f"'{self.origin['checkpoint']}' has not learned to rain. Train its cycle for longer, or on more rain"
        )

    @torch.inference_mode()
    def __call__(self, clean: NDArray[np.float32], rng: np.random.Generator) -> RainSample:
        check_clean(clean)
        path = self._guides[int(rng.integers(len(self._guides)))]
        guide = _of_size(read_image(path), clean.shape[:2], rng)[:, :, ::-1].astype(np.float32) / 255.0
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        made = self._system.rain(_padded(clean), _padded(guide), generator)
        height, width = clean.shape[:2]
        rainy = np.ascontiguousarray(made[0, :, :height, :width].permute(1, 2, 0).numpy())
        self._changes.append(float(np.abs(rainy - clean).mean()))
        rise = np.maximum((rainy - clean).mean(axis=2), 0.0)
        return RainSample(rainy, clean, rise, np.ones_like(rise), np.zeros(3, np.float32), path.name)


def _of_size(picture: NDArray[np.uint8], size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A piece of the picture, (H, W, 3) with (H, W) as asked; mirrored at its edges where it is too small."""
    missing = [max(0, wanted - side) for wanted, side in zip(size, picture.shape, strict=False)]
    picture = np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    top, left = (int(rng.integers(side - wanted + 1)) for wanted, side in zip(size, picture.shape, strict=False))
    return picture[top : top + size[0], left : left + size[1]]


def _padded(picture: NDArray[np.float32]) -> Tensor:
    """(H, W, 3) to (1, 3, H', W'), padded at the bottom and on the right to the grid."""
    frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    height, width = picture.shape[:2]
    return F.pad(frame, (0, -width % _GRID, 0, -height % _GRID), mode="replicate")
