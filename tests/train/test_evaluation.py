"""`derain eval` and `derain synth`, as functions and as commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from derain.cli import app
from derain.errors import DataError
from derain.export.figures import read_rain_half
from derain.images import list_images, read_image, write_image
from derain.train import commands
from derain.train.data.folders import Pair, find_pairs
from derain.train.evaluation import as_pairs, attention_auc, held_out_only, measure, summarise
from derain.train.machine import Machine
from derain.train.rain.particles import ParticleRain
from derain.train.synthesis import write_pairs
from derain.train.trainer import Trainer

RUN = CliRunner()


def blank(picture: np.ndarray) -> np.ndarray:
    return np.zeros(picture.shape[:2], np.float32)


def idle_derainer(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return picture, blank(picture)


def test_a_perfect_derainer_reaches_the_cap_and_an_idle_one_its_input(tiny_folders: Path) -> None:
    pairs = find_pairs(tiny_folders / "pairs")
    truth = {read_image(pair.rainy).tobytes(): read_image(pair.clean) for pair in pairs}
    perfect = summarise(measure(lambda rainy: (truth[rainy.tobytes()], blank(rainy)), pairs))
    idle = summarise(measure(idle_derainer, pairs))
    assert [summary.protocol for summary in perfect] == ["y_matlab", "rgb"]
    for good, none in zip(perfect, idle, strict=True):
        assert good.psnr == 100.0
        assert good.ssim == pytest.approx(1.0)
        assert none.psnr == none.input_psnr == good.input_psnr
        assert good.input_psnr < 35
        assert good.images == 4


def test_means_are_over_pictures(tmp_path: Path) -> None:
    grey = np.full((16, 16, 3), 100, np.uint8)
    for i, level in enumerate((110, 120)):
        write_image(tmp_path / "rainy" / f"{i}.png", np.full_like(grey, level))
        write_image(tmp_path / "clean" / f"{i}.png", grey)
    rgb = summarise(measure(idle_derainer, find_pairs(tmp_path)))[1]
    by_hand = np.mean([10 * np.log10(255**2 / difference**2) for difference in (10, 20)])
    assert rgb.psnr == pytest.approx(by_hand)


def test_the_auc_counts_pairs_won() -> None:
    assert attention_auc([0.5, 0.3], [0.1, 0.2]) == 1.0
    assert attention_auc([0.1], [0.2, 0.3]) == 0.0
    # 0.5 wins against both, 0.2 wins one and ties one: 3.5 of 4.
    assert attention_auc([0.5, 0.2], [0.1, 0.2]) == 0.875


def test_unequal_sizes_are_refused_not_cropped(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    write_image(tmp_path / "b.png", np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(DataError, match="shape"):
        measure(idle_derainer, [Pair(tmp_path / "a.png", tmp_path / "b.png")])


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(DataError, match="no pairs"):
        measure(idle_derainer, [])


def test_a_split_chooses_what_is_measured(tiny_folders: Path) -> None:
    folder = tiny_folders / "pairs"
    chosen = held_out_only(find_pairs(folder), folder, tiny_folders / "split.json")
    assert [pair.rainy.name for pair in chosen] == ["0.png"]
    with pytest.raises(DataError, match="holds out no picture"):
        held_out_only(as_pairs(tiny_folders / "clean", dry=True), tiny_folders / "clean", tiny_folders / "split.json")


def test_eval_of_a_checkpoint_writes_a_table_and_json(
    tiny_recipe: str, tiny_pictures: object, tiny_folders: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe.replace("steps = 12", "steps = 1")
    machine = Machine(accelerator="cpu", workers=0)
    checkpoint = Trainer(recipe, tiny_pictures, tmp_path / "run", machine).run()  # type: ignore[arg-type]
    report = tmp_path / "report.json"
    pairs, dry = str(tiny_folders / "pairs"), str(tiny_folders / "clean")
    result = RUN.invoke(app, ["eval", str(checkpoint), "--data", pairs, "--dry", dry, "--json", str(report)])
    assert result.exit_code == 0, result.output
    assert "y_matlab" in result.output
    document = json.loads(report.read_text())
    assert 0 <= document["attention_auc"] <= 1
    sets = document["results"]
    assert [item["dry"] for item in sets] == [False, False, True, True]
    assert [(item["protocol"], item["images"]) for item in sets] == [("y_matlab", 4), ("rgb", 4)] * 2
    assert sets[0]["psnr"] == pytest.approx(np.mean([p["psnr"] for p in sets[0]["pictures"]]))
    # A dry picture is its own ground truth, so the input is perfect.
    assert sets[2]["input_psnr"] == 100.0


def test_eval_finds_the_scale_of_the_rain_intensity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model whose attention is the brightness: 8 dark dry pictures, 8 brighter rainy ones without ground truth."""
    for index in range(8):
        write_image(tmp_path / "dry" / f"{index}.png", np.full((36, 36, 3), index, np.uint8))
        write_image(tmp_path / "rainy" / f"{index}.png", np.full((36, 36, 3), 28 + index, np.uint8))

    def bright(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return picture, (picture[..., 0] / 255).astype(np.float32)

    monkeypatch.setattr(commands, "_load", lambda model: bright)
    report = tmp_path / "report.json"
    sets = ["--dry", str(tmp_path / "dry"), "--rainy", str(tmp_path / "rainy")]
    result = RUN.invoke(app, ["eval", "model.ckpt", *sets, "--json", str(report)])
    assert result.exit_code == 0, result.output
    assert "0 of 8 rainy pictures are missed, and 0 of 8 dry ones taken" in " ".join(result.output.split())
    document = json.loads(report.read_text())
    assert document["attention_auc"] == 1
    assert document["rain_half"] == pytest.approx(2 * np.sqrt(7 / 255 * 28 / 255))
    assert {one["set"]: one["dry"] for one in document["rain"]} == {"dry": True, "rainy": False}
    assert document["rain"][1]["cells"][0] == pytest.approx(28 / 255)
    assert read_rain_half([report]) == document["rain_half"]
    only = RUN.invoke(app, ["eval", "model.ckpt", "--rainy", str(tmp_path / "rainy"), "--json", str(report)])
    assert only.exit_code == 0, only.output
    assert read_rain_half([report]) is None


@pytest.mark.parametrize("arguments", [[], ["--data", "missing"], ["--dry", "missing"], ["--rainy", "missing"]])
def test_eval_says_what_is_wrong(arguments: list[str]) -> None:
    result = RUN.invoke(app, ["eval", "model.ckpt", *arguments])
    assert result.exit_code in (1, 2)
    assert result.output.startswith("Error: ")
    assert "Traceback" not in result.output


def test_synth_writes_pairs_that_can_be_made_again(tiny_folders: Path, tmp_path: Path) -> None:
    clean = tiny_folders / "clean"
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        command = ["synth", str(clean), "-o", str(tmp_path / name), "--seed", seed, "--per-picture", "2"]
        result = RUN.invoke(app, command)
        assert result.exit_code == 0, result.output
    pairs = {name: find_pairs(tmp_path / name) for name in ("one", "again", "other")}
    assert len(pairs["one"]) == 2 * len(list_images(clean))
    pictures = {name: [read_image(pair.rainy) for pair in found] for name, found in pairs.items()}
    assert all(np.array_equal(a, b) for a, b in zip(pictures["one"], pictures["again"], strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(pictures["one"], pictures["other"], strict=True))
    assert not np.array_equal(pictures["one"][0], pictures["one"][1])
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert manifest["pairs"][0]["draw"] == [1, 0, 0]
    assert len(manifest["pairs"]) == len(pairs["one"])


def test_a_set_is_not_overwritten(tiny_folders: Path, tmp_path: Path) -> None:
    arguments = {"seed": 1, "per_picture": 1, "progress": lambda: None}
    write_pairs(tiny_folders / "clean", tmp_path, ParticleRain(), {"name": "particles"}, **arguments)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="holds a set already"):
        write_pairs(tiny_folders / "clean", tmp_path, ParticleRain(), {"name": "particles"}, **arguments)  # type: ignore[arg-type]


def test_an_unknown_regime_names_the_known_ones(tiny_folders: Path, tmp_path: Path) -> None:
    command = ["synth", str(tiny_folders / "clean"), "-o", str(tmp_path / "x"), "--regime", "monsoon"]
    result = RUN.invoke(app, command)
    assert result.exit_code == 2
    assert "monsoon" in result.output
    assert "drizzle" in result.output
