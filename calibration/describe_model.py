"""The card of a model of lower precision, made from the float32 model's card and what the calibration found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from derain import __version__
from derain.calibration.float8 import OPSET as FLOAT8_OPSET
from derain.calibration.frames import Options
from derain.calibration.gate import DRY_GROUP, Change
from derain.calibration.layers import Layers
from derain.calibration.ranges import Ranges
from derain.calibration.selection import METHOD, Selection
from derain.card import CARD_KEY, Calibration, Equalized, ModelCard, Precision, Quality

if TYPE_CHECKING:
    import onnx

_UNCALIBRATED = {"float16": "float16 needs no ranges", "int8": "the ranges were trained with", "float8": ""}


@dataclass(frozen=True)
class Outcome:
    """What a calibration found.

    Attributes:
        kept: convolutions and residual additions in higher precision.
        compared: method of ranges to the drop it caused, dB.
        equalized: channels that were made alike.
    """

    selection: Selection
    kept: frozenset[str]
    change: Change
    ranges: Ranges | None
    compared: dict[str, float]
    equalized: list[Equalized]


def lower_card(card: ModelCard, options: Options, layers: Layers, outcome: Outcome) -> ModelCard:
    """The new model's card: precision, layers of each type, frames, and what the gate measured.

    Figures that were measured on the float32 model stay, each with the stage that measured it; the parity with PyTorch
    does not, because it is not true of this graph.
    """
    change, kept = outcome.change, outcome.kept
    lowered = [name for name in layers.convolutions if name not in kept]
    eight = [] if options.kind == "float16" else lowered
    half = {*layers.products, *(lowered if options.kind == "float16" else kept - set(layers.additions))}
    every = (*layers.convolutions, *layers.products, *layers.others)
    added = [name for name in layers.additions if options.kind == "int8" and name in layers.quantized(kept)]
    calibration = Calibration(
        ranges=None if outcome.ranges is None else outcome.ranges.method,
        compared={name: round(drop, 5) for name, drop in outcome.compared.items()},
        selection=METHOD if outcome.selection.names else "none: " + _UNCALIBRATED[options.kind],
        frames=outcome.selection.digests,
        int8=eight if options.kind == "int8" else [],
        float8=eight if options.kind == "float8" else [],
        float16=[name for name in every if name in half],
        float32=[name for name in every if name not in half and name not in set(eight)],
        additions=added,
        equalized=outcome.equalized,
        max_drop=options.max_drop,
        checked=len(change.scores),
        paired=sum(score.psnr is not None for score in change.scores),
        dry=sum(score.group == DRY_GROUP for score in change.scores),
        drop=change.drop,
        groups={group: round(drop, 5) for group, drop in change.groups.items()},
        worst_drop=change.worst.drop,
        worst_frame=Path(change.worst.name).name,
        psnr_before=None if change.psnr is None else change.psnr[0],
        psnr_after=None if change.psnr is None else change.psnr[1],
        ssim_before=None if change.ssim is None else change.ssim[0],
        ssim_after=None if change.ssim is None else change.ssim[1],
        mean_shift=change.mean_shift,
        banding=change.banding,
        clipped_low=change.clipped_low,
        clipped_high=change.clipped_high,
    )
    quality = list(card.quality)
    if change.psnr is not None and change.ssim is not None:
        quality.append(
            Quality(
                dataset="held-out pairs of the calibration",
                protocol="y_matlab",
                images=calibration.paired,
                psnr=change.psnr[1],
                ssim=change.ssim[1],
                measured="calibration",
            )
        )
    statement = None
    if outcome.ranges is not None and card.trained is not None:
        statement = f"ranges of {card.trained.source}, kept to by quantization-aware training"
    elif outcome.ranges is not None:
        statement = f"{outcome.ranges.method} ranges of {len(calibration.frames)} frames"
    return card.model_copy(
        update={
            "precision": Precision(kind=options.kind, calibration=statement),
            "calibration": calibration,
            "trained": None,
            "opset": max(card.opset, FLOAT8_OPSET) if options.kind == "float8" else card.opset,
            "quality": quality,
            "parity": None,
            "derain_version": __version__,
        }
    )


def set_card(model: onnx.ModelProto, card: ModelCard) -> None:
    """Put a card into a model's metadata, in place of the one that is there."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != CARD_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, (CARD_KEY, card.to_json())]:
        model.metadata_props.add(key=key, value=value)
