"""PSNR and SSIM of anything that derains a picture, under named protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from derain.errors import DataError
from derain.images import list_images, read_image
from derain.metrics import PROTOCOLS, Protocol, psnr, ssim
from derain.train.data.folders import Pair, find_pairs, read_split
from derain.train.deployable import Deployable

Pixels = NDArray[np.uint8]
Derain = Callable[[Pixels], Pixels]


def as_pairs(folder: Path, *, dry: bool = False) -> list[Pair]:
    """Pairs of a folder with ``rainy/`` and ``clean/``; of dry pictures, each with itself as its ground truth."""
    return [Pair(path, path) for path in list_images(folder)] if dry else find_pairs(folder)


def held_out_only(pairs: Sequence[Pair], folder: Path, split: Path) -> list[Pair]:
    """Those of a folder's pairs that a split file holds out.

    Raises:
        DataError: it holds none of them out.
    """
    names = read_split(split).get(folder.resolve(), set())
    chosen = [pair for pair in pairs if pair.rainy.name in names]
    if not chosen:
        raise DataError(f"'{split}' holds out no picture of '{folder}'", fix="Leave --split out to measure all of them")
    return chosen


@dataclass(frozen=True)
class Score:
    """One picture under one protocol; PSNR in dB."""

    picture: str
    protocol: Protocol
    psnr: float
    ssim: float
    input_psnr: float
    input_ssim: float


@dataclass(frozen=True)
class Summary:
    """Means over the pictures of a set."""

    protocol: Protocol
    images: int
    psnr: float
    ssim: float
    input_psnr: float
    input_ssim: float


def measure(
    derain: Derain,
    pairs: Sequence[Pair],
    protocols: Iterable[Protocol] = PROTOCOLS,
    progress: Callable[[], None] | None = None,
) -> list[Score]:
    """Derain every rainy picture and measure it, and the rainy picture itself, against the ground truth.

    Args:
        derain: uint8 (H, W, 3) BGR to the same.
        progress: called when a picture is done.

    Raises:
        DataError: no pairs, or a pair of unequal sizes. Nothing is cropped or resized to make it fit.
    """
    if not pairs:
        raise DataError("There are no pairs to evaluate", expected="at least one rainy picture with its ground truth")
    scores: list[Score] = []
    for pair in pairs:
        rainy, clean = read_image(pair.rainy), read_image(pair.clean)
        if rainy.shape != clean.shape:
            raise DataError(
                f"'{pair.rainy}' has shape {rainy.shape} but its ground truth {clean.shape}",
                fix="Evaluate on pictures that were not resized or cropped",
            )
        derained = derain(rainy)
        for protocol in protocols:
            scores.append(
                Score(
                    pair.rainy.name,
                    protocol,
                    psnr(derained, clean, protocol),
                    ssim(derained, clean, protocol),
                    psnr(rainy, clean, protocol),
                    ssim(rainy, clean, protocol),
                )
            )
        if progress is not None:
            progress()
    return scores


def summarise(scores: Sequence[Score]) -> list[Summary]:
    """Means per protocol, in the order the protocols first appear. A perfect picture's infinite PSNR counts as 100."""
    summaries = []
    for protocol in dict.fromkeys(score.protocol for score in scores):
        chosen = [score for score in scores if score.protocol == protocol]

        def mean(name: str, chosen: list[Score] = chosen) -> float:
            return float(np.mean([min(getattr(score, name), 100.0) for score in chosen]))

        summaries.append(
            Summary(protocol, len(chosen), mean("psnr"), mean("ssim"), mean("input_psnr"), mean("input_ssim"))
        )
    return summaries


def module_derainer(module: Deployable, device: torch.device | None = None) -> Derain:
    """A PyTorch deployable as a function of uint8 BGR pictures, padded and rounded as the exported graph does it."""

    @torch.inference_mode()
    def derain(picture: Pixels) -> Pixels:
        derained, _ = run_module(module, picture, device)
        return derained

    return derain


@torch.inference_mode()
def run_module(
    module: Deployable, picture: Pixels, device: torch.device | None = None
) -> tuple[Pixels, NDArray[np.float32]]:
    """Derain one uint8 (H, W, 3) BGR picture; also its attention, float32 (H, W) in [0, 1]."""
    height, width = picture.shape[:2]
    step = module.spec.multiple_of
    frame = torch.from_numpy(np.ascontiguousarray(picture[:, :, ::-1])).to(device or "cpu")
    frame = frame.permute(2, 0, 1)[None].float() / 255.0
    padded = F.pad(frame, (0, -width % step, 0, -height % step), mode="replicate")
    derained, attention = module(padded)
    levels = (derained[0, :, :height, :width] * 255.0).round().to(torch.uint8)
    bgr = levels.permute(1, 2, 0).cpu().numpy()[:, :, ::-1]
    return np.ascontiguousarray(bgr), attention[0, 0, :height, :width].float().cpu().numpy()
