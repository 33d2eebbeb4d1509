"""Measured figures for the model card, from the report that ``derain eval --json`` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from derain.card import Magnitude, Quality
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


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore")

    results: list[_Result]
    rain_half: Magnitude | None = None


def read_figures(report: Path) -> list[Quality]:
    """The figures of a report, in its order; of dry pictures the input is the reference, so there is no input figure.

    Raises:
        DataError: the file is missing, too large, or no report of ``derain eval``.
    """
    with _refused(report):
        return [_quality(result) for result in _read(report).results]


def read_rain_half(reports: Sequence[Path]) -> float | None:
    """The scale of the rain intensity in the last report that has one; None where none has.

    Raises:
        DataError: as :func:`read_figures`.
    """
    found = None
    for report in reports:
        with _refused(report):
            found = _read(report).rain_half or found
    return found


def _read(report: Path) -> _Report:
    check_size(report, _MAX_REPORT_BYTES, DataError)
    return _Report.model_validate(json.loads(report.read_text()))


@contextmanager
def _refused(report: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:  # pydantic's and json's errors are of the first
        raise DataError(
            f"'{report}' is no report of derain eval", fix="Make one with: derain eval CHECKPOINT --json FILE"
        ) from error


def _quality(result: _Result) -> Quality:
    dataset = f"{result.name}, dry" if result.dry else result.name
    given = {} if result.dry else {"input_psnr": result.input_psnr, "input_ssim": result.input_ssim}
    figures = {"psnr": result.psnr, "ssim": result.ssim, "images": result.images, "protocol": result.protocol, **given}
    return Quality.model_validate({"dataset": dataset, "measured": "checkpoint", **figures})
