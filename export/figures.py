"""Measured figures for the model card, from the report that ``derain eval --json`` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from derain.card import Quality
from derain.errors import DataError
from derain.files import check_size

_MAX_REPORT_BYTES = 64 << 20


class _Result(BaseModel):
    """One set under one protocol. The figures of single pictures are in the report too; the card takes the means."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(alias="set", max_length=200)
    dry: bool
    protocol: str
    images: int
    psnr: float
    ssim: float
    input_psnr: float
    input_ssim: float


def read_figures(report: Path) -> list[Quality]:
    """The figures of a report, in its order; of dry pictures the input is the reference, so there is no input figure.

    Raises:
        DataError: the file is missing, too large, or no report of ``derain eval``.
    """
    check_size(report, _MAX_REPORT_BYTES, DataError)
    wrong = DataError(
        f"'{report}' is no report of derain eval", fix="Make one with: derain eval CHECKPOINT --json FILE"
    )
    try:
        document: Any = json.loads(report.read_text())
        results = [_Result.model_validate(item) for item in document["results"]]
        return [_quality(result) for result in results]
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise wrong from error


def _quality(result: _Result) -> Quality:
    dataset = f"{result.name}, dry" if result.dry else result.name
    given = {} if result.dry else {"input_psnr": result.input_psnr, "input_ssim": result.input_ssim}
    figures = {"psnr": result.psnr, "ssim": result.ssim, "images": result.images, "protocol": result.protocol, **given}
    return Quality.model_validate({"dataset": dataset, "measured": "checkpoint", **figures})
