"""What a run is measured on while it trains: held-out pairs, and pictures to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from derain.metrics import psnr, ssim
from derain.train.data.folders import Pictures
from derain.train.data.pairs import Pair
from derain.train.deployable import Deployable
from derain.train.evaluation import run_module

_QUICK = 8
_STRIPS = 3


@dataclass
class Report:
    """Figures on the held-out pairs (on training pairs or rainy pictures where nothing is held out).

    Attributes:
        change: mean absolute difference between input and output, of range 1.
        drift: largest difference between channel means of output and ground truth, of range 1.
        strips: before, after, attention and ground truth side by side, uint8 (H, W, 3) BGR.
        quality: figures for the model card; only of held-out pairs.
    """

    change: float
    drift: float
    psnr: float | None = None
    ssim: float | None = None
    input_psnr: float | None = None
    strips: list[NDArray[np.uint8]] = field(default_factory=list)
    quality: list[dict[str, Any]] = field(default_factory=list)


class Validation:
    """Measures the averaged network. A quick round takes an even choice of the pairs, the final one all of them."""

    def __init__(self, pictures: Pictures) -> None:
        self._held_out = bool(pictures.held_out)
        self._pairs = pictures.held_out or pictures.pairs[:_QUICK]
        if not self._pairs:
            self._pairs = [Pair(path, path) for path in (pictures.rainy or pictures.clean)[:_QUICK]]
        self._truth = bool(pictures.held_out or pictures.pairs)

    def run(self, module: nn.Module, device: torch.device, *, final: bool = False) -> Report:
        assert isinstance(module, Deployable)
        step = 1 if final else max(1, len(self._pairs) // _QUICK)
        rows, changes, drifts, strips = [], [], [], []
        for index, pair in enumerate(self._pairs[::step]):
            rainy, clean = pair.read()
            derained, attention = run_module(module, rainy, device)
            changes.append(np.abs(derained.astype(np.float32) - rainy).mean() / 255)
            drifts.append(np.abs(derained.mean((0, 1)) - clean.mean((0, 1))) / 255)
            if self._truth:
                rows.append([psnr(derained, clean, "y_matlab"), ssim(derained, clean, "y_matlab")])
                rows[-1] += [psnr(rainy, clean, "y_matlab"), ssim(rainy, clean, "y_matlab")]
            if index < _STRIPS:
                grey = np.repeat((attention * 255).astype(np.uint8)[:, :, None], 3, axis=2)
                strips.append(np.concatenate([rainy, derained, grey, clean], axis=1))
        report = Report(float(np.mean(changes)), float(np.max(np.mean(drifts, axis=0))) if self._truth else 0.0)
        report.strips = strips
        if rows:
            means = [float(value) for value in np.mean(np.minimum(rows, 100.0), axis=0)]
            report.psnr, report.ssim, report.input_psnr = means[0], means[1], means[2]
            if self._held_out:
                figures = dict(zip(("psnr", "ssim", "input_psnr", "input_ssim"), means, strict=True))
                report.quality = [
                    {
                        "dataset": "held-out pairs",
                        "protocol": "y_matlab",
                        "images": len(rows),
                        "measured": "checkpoint",
                        **figures,
                    }
                ]
        return report
