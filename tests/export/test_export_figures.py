"""Figures of `derain eval` in the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from derain.errors import DataError
from derain.export.figures import read_figures, read_rain_half

ROW = {
    "set": "Rain100L/test",
    "dry": False,
    "protocol": "y_matlab",
    "images": 100,
    "psnr": 32.1,
    "ssim": 0.93,
    "input_psnr": 26.9,
    "input_ssim": 0.84,
    "attention": 0.05,
    "pictures": [],
}


def report(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "report.json"
    path.write_text(json.dumps({"model": "m.ckpt", "attention_auc": None, "results": rows}))
    return path


def test_figures_keep_their_set_protocol_and_input(tmp_path: Path) -> None:
    (quality,) = read_figures(report(tmp_path, ROW))
    assert (quality.dataset, quality.protocol, quality.images) == ("Rain100L/test", "y_matlab", 100)
    assert (quality.psnr, quality.ssim, quality.input_psnr, quality.input_ssim) == (32.1, 0.93, 26.9, 0.84)
    assert quality.measured == "checkpoint"


def test_dry_pictures_are_told_apart_and_have_no_input_figure(tmp_path: Path) -> None:
    (quality,) = read_figures(report(tmp_path, {**ROW, "dry": True, "set": "data/clean"}))
    assert "dry" in quality.dataset
    assert quality.input_psnr is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"results": 1}', '{"results": [{}]}'])
def test_anything_else_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"bad\.json"):
        read_figures(path)


@pytest.mark.parametrize("change", [{"images": 0}, {"psnr": "high"}, {"protocol": "y"}, {"psnr": float("nan")}])
def test_figures_out_of_range_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no report of derain eval"):
        read_figures(report(tmp_path, {**ROW, **change}))


def test_the_scale_of_the_rain_intensity_is_that_of_the_last_report_that_has_one(tmp_path: Path) -> None:
    paths = []
    for name, extra in (("a", {"rain_half": 0.02}), ("b", {"rain_half": 0.03}), ("c", {}), ("d", {"rain_half": None})):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({"results": [], **extra}))
    assert read_rain_half(paths) == 0.03
    assert read_rain_half([]) is None
    assert read_rain_half(paths[2:]) is None


@pytest.mark.parametrize("half", [0, -1, "much", 1e999])
def test_a_scale_that_is_none_is_refused(half: object, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"results": [], "rain_half": half}))
    with pytest.raises(DataError, match="no report of derain eval"):
        read_rain_half([path])
