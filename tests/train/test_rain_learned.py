"""Rain from a trained rain maker: varied, repeatable, of any size, and refused where a system makes none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import scene, streaked
from tiny import to_toml
from tiny_systems import TINY, build, scramble
from torch import Tensor
from typer.testing import CliRunner

from derain.cli import app
from derain.files import file_sha256
from derain.images import read_image, write_image
from derain.train.checkpoint import save_checkpoint
from derain.train.data.layouts import find_pairs
from derain.train.rain.learned import LearnedRain

RUN = CliRunner()
MAKERS = ["acgf edge", "acgf full guide", "aueid edge", "derain-cyclegan edge", "derain-cyclegan full"]


def checkpoint(name: str, folder: Path) -> Path:
    """A checkpoint of a tiny system with random weights."""
    kind, table = TINY[name]
    system = build(name)
    scramble(system)
    path = folder / "last.ckpt"
    empty: dict[str, object] = {"step": 1, "minutes": 0.0, "data": [], "quality": [], "optimizers": {}, "alarms": {}}
    weights = {"system": system.state_dict(), "derainer": system.derainer.state_dict()}
    save_checkpoint(
        path, {"recipe": to_toml({"name": "tiny", "system": kind, "steps": 1, "config": table})} | empty | weights
    )
    return path


def clean_picture(height: int, width: int) -> np.ndarray:
    return scene(1, height, width).astype(np.float32) / 255


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_makes_the_same_rain_again_and_another_seed_another(
    name: str, tiny_folders: Path, tmp_path: Path
) -> None:
    rain = LearnedRain(checkpoint(name, tmp_path), tiny_folders / "rainy")
    clean = clean_picture(45, 67)
    before = clean.copy()
    one, again, other = (rain(clean, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.rainy.shape == clean.shape
    assert one.rainy.dtype == np.float32
    assert 0 <= one.rainy.min() <= one.rainy.max() <= 1
    assert np.array_equal(one.rainy, again.rainy)
    assert np.abs(one.rainy - other.rainy).max() > 1 / 255
    assert np.array_equal(clean, before)
    assert np.array_equal(one.clean, before)
    np.testing.assert_allclose(one.streaks, (one.rainy - clean).mean(2).clip(0), atol=1e-6)
    assert one.regime in {path.name for path in (tiny_folders / "rainy").iterdir()}


def test_acgf_makes_many_rains_of_one_guide(tmp_path: Path) -> None:
    """The guide is alone and of the picture's size, so nothing but the noise differs."""
    write_image(tmp_path / "rainy" / "only.png", streaked(scene(5, 48, 64), 1))
    rain = LearnedRain(checkpoint("acgf edge", tmp_path), tmp_path / "rainy")
    one, other = (rain(clean_picture(48, 64), np.random.default_rng(seed)).rainy for seed in (1, 2))
    assert np.abs(one - other).max() > 1 / 255


@pytest.mark.parametrize("size", [(48, 64), (45, 67), (20, 90), (70, 30)])
def test_pictures_are_padded_and_cropped_back_in_place(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rain maker that averages the two pictures shows what it was given, and where it came back."""
    guide = streaked(scene(5, 45, 67), 1)
    write_image(tmp_path / "rainy" / "only.png", guide)
    rain = LearnedRain(checkpoint("acgf edge", tmp_path), tmp_path / "rainy")

    def average(clean: Tensor, rainy: Tensor, generator: torch.Generator) -> Tensor:
        assert clean.shape == rainy.shape
        assert clean.shape[2] % 16 == clean.shape[3] % 16 == 0
        return (clean + rainy) / 2

    monkeypatch.setattr(rain._system, "rain", average)
    clean = clean_picture(*size)
    seen = 2 * rain(clean, np.random.default_rng(3)).rainy - clean
    rgb = np.pad(guide[:, :, ::-1] / 255, ((0, 45), (0, 67), (0, 0)), mode="symmetric")
    places = [(y, x) for y in range(max(1, 46 - size[0])) for x in range(max(1, 68 - size[1]))]
    cuts = [np.abs(rgb[y : y + size[0], x : x + size[1]] - seen).max() for y, x in places]
    assert min(cuts) < 1e-6, "a contiguous piece of the guide, at its scale"


def test_synth_writes_a_paired_set_with_its_origin(tiny_folders: Path, tmp_path: Path) -> None:
    path = checkpoint("derain-cyclegan edge", tmp_path)
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        command = ["synth", str(tiny_folders / "clean"), "-o", str(tmp_path / name), "--seed", seed]
        result = RUN.invoke(app, [*command, "--from", str(path), "--rainy", str(tiny_folders / "rainy")])
        assert result.exit_code == 0, result.output
    one, again, other = (find_pairs(tmp_path / name) for name in ("one", "again", "other"))
    assert len(one) == 4
    for a, b, c in zip(one, again, other, strict=True):
        assert np.array_equal(read_image(a.clean), read_image(tiny_folders / "clean" / a.clean.name))
        assert np.array_equal(read_image(a.rainy), read_image(b.rainy))
        assert not np.array_equal(read_image(a.rainy), read_image(c.rainy))
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert manifest["renderer"] == {"name": "learned", "checkpoint": "tiny", "sha256": file_sha256(path)}
    assert {entry["rain"] for entry in manifest["pairs"]} <= {f"{i}.png" for i in range(4)}


def test_a_rain_maker_that_has_learned_nothing_is_told(tiny_folders: Path, tmp_path: Path) -> None:
    """The set is written all the same: weak rain may be wanted."""
    path = checkpoint("acgf edge", tmp_path)
    state = torch.load(path, weights_only=True)
    for name, value in {"rain3.2": -30.0, "fog.4": 30.0}.items():  # no streaks, full transmission
        state["system"][f"rfdr.{name}.weight"].zero_()
        state["system"][f"rfdr.{name}.bias"].fill_(value)
    for name in ("weight", "bias"):
        state["system"][f"rfdr.refine.4.{name}"].zero_()
    torch.save(state, tmp_path / "dead.ckpt")
    for checked, told in ((tmp_path / "dead.ckpt", True), (path, False)):
        command = ["synth", str(tiny_folders / "clean"), "-o", str(tmp_path / checked.stem)]
        result = RUN.invoke(app, [*command, "--from", str(checked), "--rainy", str(tiny_folders / "rainy")])
        assert result.exit_code == 0, result.output
        assert ("'tiny' has not learned to rain" in result.output) == told


@pytest.mark.parametrize("name", ["remaen edge", "dcd-gan edge"])
def test_a_system_that_makes_no_rain_is_refused(name: str, tiny_folders: Path, tmp_path: Path) -> None:
    command = [
        "synth",
        str(tiny_folders / "clean"),
        "-o",
        str(tmp_path / "out"),
        "--rainy",
        str(tiny_folders / "rainy"),
    ]
    result = RUN.invoke(app, [*command, "--from", str(checkpoint(name, tmp_path))])
    assert result.exit_code == 2
    assert f"The system '{TINY[name][0]}' cannot put the rain" in result.output
    assert "derain-cyclegan" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--from", "last.ckpt"],
        ["--rainy", "rainy"],
        ["--from", "last.ckpt", "--rainy", "rainy", "--regime", "heavy"],
        ["--from", "last.ckpt", "--rainy", "rainy", "--renderer", "noise"],
    ],
)
def test_options_that_do_not_go_together_are_told(options: list[str], tiny_folders: Path, tmp_path: Path) -> None:
    result = RUN.invoke(app, ["synth", str(tiny_folders / "clean"), "-o", str(tmp_path / "out"), *options])
    assert result.exit_code == 2
    assert "--from" in result.output
    assert "--rainy" in result.output
