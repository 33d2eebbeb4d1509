"""The shipped models: every one whole, described by its card, and refused when it was changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import derain.models
from derain.card import read_card
from derain.cli import app
from derain.errors import ModelFileError
from derain.models import resolve, shipped


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with one model, `tiny`, of four bytes."""
    (tmp_path / "tiny.onnx").write_bytes(b"onnx")
    entry = {"file": "tiny.onnx", "sha256": hashlib.sha256(b"onnx").hexdigest(), "bytes": 4}
    (tmp_path / "index.json").write_text(json.dumps({"tiny": entry}))
    monkeypatch.setattr(derain.models, "_FOLDER", tmp_path)
    return tmp_path


def test_the_models_of_this_tree_are_whole() -> None:
    models = shipped()
    assert {"nano", "edge"} <= models.keys()
    for name, model in models.items():
        assert resolve(name) == model.path
        assert model.path.stat().st_size == model.bytes
        card = read_card(model.path)
        assert card.name == name
        assert card.quality
        assert card.training is not None
        assert card.training.data
    files = {path.name for path in Path(derain.models.__file__).parent.glob("*.onnx")}
    assert files == {model.path.name for model in models.values()}


def test_the_command_shows_each_model() -> None:
    result = CliRunner().invoke(app, ["models"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name, model in shipped().items():
        assert name in result.output
        assert f"{read_card(model.path).quality[0].psnr:.2f} (" in result.output


def test_a_name_and_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("tiny") == folder / "tiny.onnx"
    assert resolve(str(folder / "tiny.onnx")) == folder / "tiny.onnx"
    (folder / "here").mkdir()
    (folder / "here" / "tiny").write_bytes(b"other")
    monkeypatch.chdir(folder / "here")
    assert resolve("tiny") == folder / "tiny.onnx"
    assert resolve("./tiny").read_bytes() == b"other"
    assert resolve(Path("tiny")).read_bytes() == b"other"


def test_unknown_names_and_missing_files(folder: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model named 'egde'.*shipped name \(tiny\)"):
        resolve("egde")
    with pytest.raises(ModelFileError, match=r"Model file 'edge\.onnx' does not exist"):
        resolve("edge.onnx")
    with pytest.raises(ModelFileError, match=r"Model file 'models/edge' does not exist"):
        resolve("models/edge")


def test_a_changed_file_is_refused(folder: Path) -> None:
    (folder / "tiny.onnx").write_bytes(b"evil")
    with pytest.raises(ModelFileError, match=r"was changed.*pip install --force-reinstall"):
        resolve("tiny")
    (folder / "tiny.onnx").unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        resolve("tiny")


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {}}', '{"a": {"file": 1, "sha256": "", "bytes": 1}}'])
def test_a_damaged_index(folder: Path, text: str) -> None:
    (folder / "index.json").write_text(text)
    with pytest.raises(ModelFileError, match="index of shipped models"):
        resolve("tiny")
