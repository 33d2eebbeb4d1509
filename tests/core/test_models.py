"""The shipped models: every one whole, described by its card, and refused when it was changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import derain.models
from derain.card import read_card
from derain.cli import app
from derain.companions import beside
from derain.errors import ModelFileError
from derain.models import INDEX, resolve, shipped
from derain.models.index import write_index


def _entry(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with one model, `tiny`, of four bytes, and its attention part."""
    (tmp_path / "tiny.onnx").write_bytes(b"onnx")
    (tmp_path / "tiny.attention.onnx").write_bytes(b"look")
    entry = _entry(b"onnx") | {"companions": {"attention": _entry(b"look")}}
    (tmp_path / "index.json").write_text(json.dumps({"tiny": entry}))
    monkeypatch.setattr(derain.models, "_FOLDER", tmp_path)
    return tmp_path


def test_the_models_of_this_tree_are_whole() -> None:
    models = shipped()
    assert {"nano", "edge", "nano-rain100l", "edge-rain100l", "edge-unpaired"} == models.keys()
    for name, model in models.items():
        assert resolve(name) == model.path
        assert model.path.stat().st_size == model.bytes
        card = read_card(model.path)
        assert card.name == name
        assert card.quality
        assert card.training is not None
        assert card.training.data
    files = set(Path(derain.models.__file__).parent.glob("*.onnx"))
    assert files == {file.path for model in models.values() for file in model.files}


def test_the_index_of_this_tree_is_that_of_its_files(tmp_path: Path) -> None:
    """So that companions and models come from one training, and a new export is listed."""
    folder = Path(derain.models.__file__).parent
    for path in folder.glob("*.onnx"):
        (tmp_path / path.name).symlink_to(path)
    assert write_index(tmp_path) == json.loads((folder / INDEX).read_text())
    assert (tmp_path / INDEX).read_text() == (folder / INDEX).read_text()


def test_an_index_of_files_that_do_not_belong_together(tmp_path: Path) -> None:
    shipped_folder = Path(derain.models.__file__).parent
    shutil.copy(shipped_folder / "nano.onnx", tmp_path / "nano.onnx")
    assert write_index(tmp_path) == {"nano": _entry((tmp_path / "nano.onnx").read_bytes()) | {"companions": {}}}
    shutil.copy(shipped_folder / "edge.onnx", beside(tmp_path / "nano.onnx", "tile"))
    with pytest.raises(ModelFileError, match=r"edge\.onnx|nano\.tile\.onnx"):
        write_index(tmp_path)
    beside(tmp_path / "nano.onnx", "tile").unlink()
    shutil.copy(shipped_folder / "nano.attention.onnx", tmp_path / "other.attention.onnx")
    with pytest.raises(ModelFileError, match=r"other\.attention\.onnx' belongs to no model"):
        write_index(tmp_path)
    shutil.move(tmp_path / "other.attention.onnx", beside(tmp_path / "nano.onnx", "tile"))
    with pytest.raises(ModelFileError, match=r"is not the 'tile' part"):
        write_index(tmp_path)
    shutil.move(tmp_path / "nano.onnx", tmp_path / "micro.onnx")
    with pytest.raises(ModelFileError, match=r"Expected the file name nano\.onnx"):
        write_index(tmp_path)


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
    for name in ("tiny.attention.onnx", "tiny.onnx"):
        (folder / name).write_bytes(b"evil")
        with pytest.raises(ModelFileError, match=rf"{name}' was changed.*pip install --force-reinstall"):
            resolve("tiny")
        (folder / name).unlink()
        with pytest.raises(ModelFileError, match=f"{name}' cannot be read"):
            resolve("tiny")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": 1}', '{"a": {}}', '{"a": {"sha256": "", "bytes": 1, "companions": 1}}']
)
def test_a_damaged_index(folder: Path, text: str) -> None:
    (folder / "index.json").write_text(text)
    with pytest.raises(ModelFileError, match="index of shipped models"):
        resolve("tiny")
