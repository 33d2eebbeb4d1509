"""PSNR and SSIM of anything that derains a picture, under named protocols, and how well its attention tells rain."""

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
from derain.rain_intensity import half_between, typical_cell
from derain.train.data.layouts import find_pairs
from derain.train.data.pairs import Pair
from derain.train.data.split import HeldOut
from derain.train.deployable import Deployable

Pixels = NDArray[np.uint8]
RainMap = NDArray[np.float32]
Derain = Callable[[Pixels], tuple[Pixels, RainMap]]


def as_pairs(folder: Path, *, dry: bool = False, layout: str | None = None) -> list[Pair]:
    """Pairs of a folder of pairs; of dry pictures, each with itself as its ground truth."""
    return [Pair(path, path) for path in list_images(folder)] if dry else find_pairs(folder, layout)


def held_out_only(pairs: Sequence[Pair], folder: Path, split: Path, layout: str | None = None) -> list[Pair]:
    """Those of a folder's pairs, or dry pictures, that a split file holds out.

    Raises:
        DataError: it holds none of them out.
    """
    dry = all(pair.rainy == pair.clean and pair.rainy_side is None for pair in pairs)
    held = HeldOut(split, [folder] if dry else (), () if dry else [folder], layout)
    return [pair for pair in pairs if (held.picture(pair.rainy) if dry else held.pair(pair))]


@dataclass(frozen=True)
class Score:
    """One picture under one protocol; PSNR in dB; ``attention`` is the mean of its map, in [0, 1], ``cell`` its typical
    cell (:func:`derain.rain_intensity.typical_cell`)."""

    picture: str
    protocol: Protocol
    psnr: float
    ssim: float
    input_psnr: float
    input_ssim: float
    attention: float
    cell: float


@dataclass(frozen=True)
class Summary:
    """Means over the pictures of a set."""

    protocol: Protocol
    images: int
    psnr: float
    ssim: float
    input_psnr: float
    input_ssim: float
    attention: float


def measure(
    derain: Derain,
    pairs: Sequence[Pair],
    protocols: Iterable[Protocol] = PROTOCOLS,
    progress: Callable[[], None] | None = None,
) -> list[Score]:
    """Derain every rainy picture and measure it, and the rainy picture itself, against the ground truth.

    Args:
        derain: uint8 (H, W, 3) BGR to the same and the attention, float32 (H, W) in [0, 1].
        progress: called when a picture is done.

    Raises:
        DataError: no pairs, or a pair of unequal sizes. Nothing is cropped or resized to make it fit.
    """
    if not pairs:
        raise DataError("There are no pairs to evaluate", expected="at least one rainy picture with its ground truth")
    scores: list[Score] = []
    for pair in pairs:
        rainy, clean = pair.read()
        derained, attention = derain(rainy)
        for protocol in protocols:
            scores.append(
                Score(
                    pair.rainy.name,
                    protocol,
                    psnr(derained, clean, protocol),
                    ssim(derained, clean, protocol),
                    psnr(rainy, clean, protocol),
                    ssim(rainy, clean, protocol),
                    float(attention.mean()),
                    typical_cell(attention),
                )
            )
        if progress is not None:
            progress()
    return scores


def look_at_rain(
    derain: Derain, pictures: Sequence[Path], progress: Callable[[], None] | None = None
) -> tuple[list[float], list[float]]:
    """Means and typical cells of the attention on pictures without ground truth; ``progress`` after each."""
    means, cells = [], []
    for picture in pictures:
        attention = derain(read_image(picture))[1]
        means.append(float(attention.mean()))
        cells.append(typical_cell(attention))
        if progress is not None:
            progress()
    return means, cells


def summarise(scores: Sequence[Score]) -> list[Summary]:
    """Means per protocol, in the order the protocols first appear. A perfect picture's infinite PSNR counts as 100."""
    summaries = []
    for protocol in dict.fromkeys(score.protocol for score in scores):
        chosen = [score for score in scores if score.protocol == protocol]

        def mean(name: str, chosen: list[Score] = chosen) -> float:
            return float(np.mean([min(getattr(score, name), 100.0) for score in chosen]))

        names = ("psnr", "ssim", "input_psnr", "input_ssim", "attention")
        summaries.append(Summary(protocol, len(chosen), *(mean(name) for name in names)))
    return summaries


def attention_auc(rainy: Sequence[float], dry: Sequence[float]) -> float:
    """The chance that a rainy picture's mean attention is above a dry one's (area under the ROC curve)."""
    above = np.subtract.outer(np.asarray(rainy), np.asarray(dry))
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


@dataclass(frozen=True)
class RainOfSet:
    """What the attention says of a set's pictures: the means of the maps, and their typical cells."""

    set: str
    dry: bool
    attention: list[float]
    cells: list[float]


@dataclass(frozen=True)
class Verdict:
    """How well a model tells rain from dry weather.

    Attributes:
        auc: see :func:`attention_auc`, by the maps' means.
        half: scale of the rain intensity, for the model's card; None where too few pictures of one kind were seen.
        sentence: both, for people.
    """

    auc: float
    half: float | None
    sentence: str


def tell_rain(sets: Sequence[RainOfSet]) -> Verdict | None:
    """What sets of rainy and dry pictures say of a model's attention; None without both kinds."""
    rainy, dry = ([one for one in sets if one.dry is kind] for kind in (False, True))
    if not rainy or not dry:
        return None
    means, cells = (
        [[value for one in kind for value in getattr(one, name)] for kind in (rainy, dry)]
        for name in ("attention", "cells")
    )
    auc = attention_auc(*means)
    sentence = f"The mean attention tells rainy from dry pictures with an AUC of {auc:.3f}"
    half = half_between(*cells)
    if half is not None:
        missed = sum(cell < half / 2 for cell in cells[0])
        alarmed = sum(cell >= half / 2 for cell in cells[1])
        sentence += (
            f". With {half:.4g} as the scale of the rain intensity, a third parts them best: {missed} of "
            f"{len(cells[0])} rainy pictures are missed, and {alarmed} of {len(cells[1])} dry ones taken for rainy"
        )
    return Verdict(auc, half, sentence)


def module_derainer(module: Deployable, device: torch.device | None = None) -> Derain:
    """A PyTorch deployable as a function of uint8 BGR pictures, padded and rounded as the exported graph does it."""
    return lambda picture: run_module(module, picture, device)


@torch.inference_mode()
def run_module(
    module: Deployable, picture: Pixels, device: torch.device | None = None
) -> tuple[Pixels, NDArray[np.float32]]:
    """Derain one uint8 (H, W, 3) BGR picture; also its attention, float32 (H, W) in [0, 1]."""
    height, width = picture.shape[:2]
    step = module.spec.multiple_of
    frame = torch.from_numpy(np.ascontiguousarray(picture[:, :, ::-1])).to(device or "cpu")
    frame = frame.permute(2, 0, 1)[None].to(next(module.parameters()).dtype) / 255.0
    padded = F.pad(frame, (0, -width % step, 0, -height % step), mode="replicate")
    derained, attention = module(padded)
    levels = (derained[0, :, :height, :width] * 255.0).round().to(torch.uint8)
    bgr = levels.permute(1, 2, 0).cpu().numpy()[:, :, ::-1]
    return np.ascontiguousarray(bgr), attention[0, 0, :height, :width].float().cpu().numpy()
