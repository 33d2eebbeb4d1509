"""The models that ship with derain: their names, and the files behind them, checked before use."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from derain.errors import ModelFileError

_FOLDER = Path(__file__).parent
_REINSTALL = "Install derain again: pip install --force-reinstall --no-deps derain"


@dataclass(frozen=True)
class ShippedModel:
    """One entry of ``index.json``. ``sha256`` in lower-case hexadecimal; ``path`` is absolute."""

    name: str
    path: Path
    sha256: str
    bytes: int


def shipped() -> dict[str, ShippedModel]:
    """The models of this installation by name, in the order of ``index.json``.

    Raises:
        ModelFileError: the index is missing or damaged, so the installation is not whole.
    """
    index = _FOLDER / "index.json"
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        return {
            str(name): ShippedModel(str(name), _FOLDER / Path(entry["file"]).name, entry["sha256"], int(entry["bytes"]))
            for name, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"The index of shipped models '{index}' cannot be used ({error})", fix=_REINSTALL
        ) from error


def resolve(name_or_path: str | Path) -> Path:
    """The file behind a shipped name, or the given path.

    A shipped name wins over a file of the same name in the current folder; write ``./edge`` for the file.

    Raises:
        ModelFileError: an unknown name, a missing file, or a shipped file that is not the one its checksum names.
    """
    text = os.fspath(name_or_path)
    models = shipped()
    if isinstance(name_or_path, str) and text in models:
        return _verified(models[text])
    path = Path(text)
    if path.exists():
        return path
    if path.suffix or path.name != text:
        raise ModelFileError(f"Model file '{text}' does not exist", fix="Check the path")
    known = ", ".join(models) or "none in this installation"
    raise ModelFileError(
        f"There is no model named '{text}'", expected=f"a path to a model file, or a shipped name ({known})"
    )


def _verified(model: ShippedModel) -> Path:
    try:
        digest = hashlib.sha256(model.path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelFileError(
            f"Shipped model '{model.path}' cannot be read ({error.strerror})", fix=_REINSTALL
        ) from error
    if digest != model.sha256:
        raise ModelFileError(
            f"Shipped model '{model.path}' was changed: its SHA-256 is {digest}", expected=model.sha256, fix=_REINSTALL
        )
    return model.path
