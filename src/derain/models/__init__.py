"""The models that ship with derain: their names, and the files behind them, checked before use."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain.companions import COMPANIONS, Companion, beside
from derain.errors import ModelFileError
from derain.files import file_sha256

INDEX = "index.json"
_FOLDER = Path(__file__).parent
_REINSTALL = "Install derain again: pip install --force-reinstall --no-deps derain"


@dataclass(frozen=True)
class ShippedFile:
    """A file of this installation: its absolute path, its SHA-256 in lower-case hexadecimal, its size."""

    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ShippedModel(ShippedFile):
    """One entry of ``index.json``. ``companions`` lie beside it, named as :func:`derain.companions.beside` says."""

    name: str
    companions: dict[Companion, ShippedFile]

    @property
    def files(self) -> list[ShippedFile]:
        """The model and its companions."""
        return [self, *self.companions.values()]


def shipped() -> dict[str, ShippedModel]:
    """The models of this installation by name, in the order of ``index.json``.

    Raises:
        ModelFileError: the index is missing or damaged, so the installation is not whole.
    """
    index = _FOLDER / INDEX
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        return {str(name): _model(str(name), entry) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"The index of shipped models '{index}' cannot be used ({error})", fix=_REINSTALL
        ) from error


def _model(name: str, entry: dict[str, Any]) -> ShippedModel:
    path = _FOLDER / f"{name}.onnx"
    parts = entry["companions"]
    companions = {
        part: ShippedFile(beside(path, part), parts[part]["sha256"], int(parts[part]["bytes"]))
        for part in COMPANIONS
        if part in parts
    }
    return ShippedModel(path, entry["sha256"], int(entry["bytes"]), name, companions)


def resolve(name_or_path: str | Path) -> Path:
    """The file behind a shipped name, or the given path.

    A shipped name wins over a file of the same name in the current folder; write ``./edge`` for the file.

    Raises:
        ModelFileError: an unknown name, a missing file, or a shipped file (of the model or a companion) that is not
            the one its checksum names.
    """
    text = os.fspath(name_or_path)
    models = shipped()
    if isinstance(name_or_path, str) and text in models:
        for file in models[text].files:
            _verify(file)
        return models[text].path
    path = Path(text)
    if path.exists():
        return path
    if path.suffix or path.name != text:
        raise ModelFileError(f"Model file '{text}' does not exist", fix="Check the path")
    known = ", ".join(models) or "none in this installation"
    raise ModelFileError(
        f"There is no model named '{text}'", expected=f"a path to a model file, or a shipped name ({known})"
    )


def _verify(file: ShippedFile) -> None:
    try:
        digest = file_sha256(file.path)
    except OSError as error:
        raise ModelFileError(
            f"Shipped model '{file.path}' cannot be read ({error.strerror})", fix=_REINSTALL
        ) from error
    if digest != file.sha256:
        raise ModelFileError(
            f"Shipped model '{file.path}' was changed: its SHA-256 is {digest}", expected=file.sha256, fix=_REINSTALL
        )
