"""``derain train`` as a newcomer meets it: what is wrong is said in one line, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenes import scene
from tiny import tiny_recipe
from typer.testing import CliRunner

from derain.cli import app
from derain.images import write_image
from derain.train.checkpoint import read_checkpoint


def run(tmp_path: Path, *arguments: object) -> tuple[int, str]:
    """Exit code and output, in one line, of ``derain train``, which writes to the folder ``run``."""
    command = ["train", *map(str, arguments), "--out", str(tmp_path / "run"), "--device", "cpu", "--threads", "1"]
    result = CliRunner().invoke(app, command)
    assert "Traceback" not in result.output
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(tiny_recipe("acgf", steps=1))
    return path


def test_without_a_recipe_the_shipped_ones_are_named(tmp_path: Path) -> None:
    code, output = run(tmp_path)
    assert code == 2
    assert "one of acgf-full, aueid-edge" in output


@pytest.mark.parametrize(("old", "new"), [("steps = 1", "steps = = 1"), ("steps = 1", "stepps = 1")])
def test_a_wrong_recipe_is_named(old: str, new: str, recipe: Path, tiny_folders: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace(old, new))
    code, output = run(tmp_path, recipe, "--clean", tiny_folders / "clean")
    assert code == 2
    assert "my.toml'" in output


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_finds_is_one_line_and_leaves_no_folder(
    workers: int, recipe: Path, tiny_folders: Path, tmp_path: Path
) -> None:
    write_image(tmp_path / "small" / "a.png", scene(1, 24, 24))
    code, output = run(tmp_path, recipe, "--clean", tmp_path / "small", "--workers", workers)
    assert code == 1
    assert output.startswith("Error: ")
    assert "a.png' is 24x24. Expected training pictures of at least 32x32" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("side", ["rainy", "clean"])
def test_an_unpaired_system_asks_for_the_missing_side(side: str, tiny_folders: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(tiny_recipe("dcd-gan", steps=1))
    pairs = ["--pairs", tiny_folders / "pairs"]
    code, output = run(tmp_path, path, f"--{side}", tiny_folders / side, *pairs)
    assert code == 1
    missing = {"rainy": "clean", "clean": "rainy"}[side]
    assert f"no {missing} ones were given. Give both --rainy FOLDER and --clean FOLDER" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("system", "given", "note"),
    [
        ("acgf", ["rainy", "pairs"], "without --clean there is no cycle"),
        ("acgf", ["clean", "pairs"], "without --rainy there is no cycle"),
        ("remaen", ["rainy", "pairs"], "--rainy is not used"),
        ("dcd-gan", ["rainy", "clean", "pairs"], "--pairs are measured on, not trained on"),
        ("acgf", ["rainy", "clean", "pairs"], None),
    ],
)
def test_what_a_run_does_not_use_is_said(
    system: str, given: list[str], note: str | None, tiny_folders: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my.toml"
    path.write_text(tiny_recipe(system, steps=1))
    if system == "acgf":
        path.write_text(path.read_text().replace("cycle_from = 2", "cycle_from = 0"))
    folders = [part for side in given for part in (f"--{side}", tiny_folders / side)]
    code, output = run(tmp_path, path, *folders, "--workers", 0)
    assert code == 0, output
    assert output.count("Note: ") == (note is not None)
    assert note is None or note in output
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["step"] == 1


def test_more_gpus_than_there_are_is_a_clear_error(
    recipe: Path, tiny_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count, found in ((0, "sees no GPU"), (1, "sees 1 GPU here, and 2 should train")):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        for option in (["--device", "cuda"], ["--device", "auto"]):
            if option[1] == "auto" and not count:
                continue  # no GPU: auto is the CPU
            folders = ["--clean", str(tiny_folders / "clean"), "--out", str(tmp_path / "run")]
            result = CliRunner().invoke(app, ["train", str(recipe), *folders, *option, "--devices", "2"])
            assert result.exit_code == 2
            assert found in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()
