from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import REGULAR, frames_of, make_video, times_of
from standin import save_model
from typer import Typer
from typer.testing import CliRunner

import derain
from derain import demo
from derain.images import read_image
from derain.metrics import psnr
from derain.runtime.compare import compared_width


@pytest.fixture
def app() -> Typer:
    app = Typer()
    app.callback()(lambda: None)
    demo.register(app)
    return app


def test_clip_moves_rains_and_repeats() -> None:
    clip = demo.make_clip(4)
    again = demo.make_clip(4)
    for rainy, clean, other in zip(clip.rainy, clip.clean, again.rainy, strict=True):
        np.testing.assert_array_equal(rainy, other)
        assert 15 < psnr(rainy, clean, "y_matlab") < 30
    assert psnr(clip.clean[0], clip.clean[3], "y_matlab") < 40
    rain = [rainy.astype(int) - clean for rainy, clean in zip(clip.rainy, clip.clean, strict=True)]
    assert np.abs(rain[0] - rain[1]).mean() > 3  # the rain is elsewhere in the next frame


def test_demo_measures_against_the_clean_frames(tmp_path: Path) -> None:
    clip = demo.make_clip(3)
    with derain.load(save_model(tmp_path / "m.onnx")) as model:
        stats, scores = demo.derain_clip(model, clip, tmp_path)
        wanted = np.mean([psnr(model(r), c, "y_matlab") for r, c in zip(clip.rainy, clip.clean, strict=True)])
    assert stats.frames == 3
    assert scores.psnr_after == pytest.approx(wanted)
    assert scores.psnr_before == pytest.approx(
        np.mean([psnr(r, c, "y_matlab") for r, c in zip(clip.rainy, clip.clean, strict=True)])
    )


def test_demo_command(tmp_path: Path, app: Typer) -> None:
    path = save_model(tmp_path / "m.onnx")
    arguments = ["demo", "--model", str(path), "-o", str(tmp_path / "out"), "--seconds", "0.2"]
    for _ in range(2):  # the second time over its own results
        shown = CliRunner().invoke(app, arguments)
        assert shown.exit_code == 0, shown.output
    assert "y_matlab" in shown.output
    assert "CC BY 2.0" in shown.output
    picture = read_image(tmp_path / "out" / "demo.png")
    frames = frames_of(tmp_path / "out" / "demo.mp4")
    assert len(frames) == 5
    assert frames[0].shape == picture.shape == (384, compared_width(576), 3)
    assert np.abs(frames[2].astype(int) - picture).mean() < 6


def test_demo_with_a_video_of_ones_own(tmp_path: Path, app: Typer) -> None:
    path, source = save_model(tmp_path / "m.onnx"), make_video(tmp_path / "my.mp4", REGULAR)
    arguments = ["demo", "--model", str(path), "-o", str(tmp_path / "out"), "--input", str(source)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert times_of(tmp_path / "out" / "my.mp4") == times_of(source)
    assert read_image(tmp_path / "out" / "my.png").shape == (64, compared_width(96), 3)


def test_neither_torch_nor_the_network_is_needed(tmp_path: Path) -> None:
    """Everything the demo imports, in a fresh interpreter where importing torch fails."""
    path = save_model(tmp_path / "m.onnx")
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None\n"
        "import derain; from derain import demo; from pathlib import Path\n"
        f"demo.derain_clip(derain.load({str(path)!r}), demo.make_clip(2), Path({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    assert (tmp_path / "demo.mp4").exists()


def test_the_sample_ships_with_its_attribution() -> None:
    licence = demo.SAMPLE.with_name("sample.LICENCE.txt").read_text()
    assert "danielbuechele" in licence
    assert "https://creativecommons.org/licenses/by/2.0/" in licence
    assert read_image(demo.SAMPLE).shape == (427, 640, 3)
