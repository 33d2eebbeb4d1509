"""Writes ``index.json``: run ``python -m derain.models.index`` after a model was exported into this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from derain.card import read_card
from derain.companions import COMPANIONS, beside
from derain.errors import ModelFileError
from derain.files import atomic_path, file_sha256
from derain.models import INDEX


def write_index(folder: Path) -> dict[str, Any]:
    """List the models of a folder and their companions, the smallest first, with sizes and checksums.

    Returns:
        What was written.

    Raises:
        ModelFileError: a model that is not called as its card says, a companion that was exported from other weights,
            or a file that belongs to no model.
    """
    listed: dict[Path, dict[str, Any]] = {}
    left = set(folder.glob("*.onnx"))
    for path in sorted(left, key=lambda path: path.stat().st_size):
        card = read_card(path)
        if card.part != "whole":
            continue
        if card.name != path.stem:
            raise ModelFileError(f"'{path}' holds the model '{card.name}'", expected=f"the file name {card.name}.onnx")
        listed[path] = _file(path) | {"companions": {}}
        left.discard(path)
        for part in COMPANIONS:
            companion = beside(path, part)
            if companion not in left:
                continue
            other = read_card(companion)
            if (other.name, other.part, other.training) != (card.name, part, card.training):
                raise ModelFileError(
                    f"'{companion}' is not the '{part}' part of '{path}': it comes from another export",
                    fix="Export both with: derain export CHECKPOINT -o NAME.onnx --companions",
                )
            listed[path]["companions"][part] = _file(companion)
            left.discard(companion)
    if left:
        raise ModelFileError(f"'{min(left)}' belongs to no model of this folder", fix="Remove it")
    entries = {path.stem: entry for path, entry in listed.items()}
    with atomic_path(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    return entries


def _file(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


if __name__ == "__main__":
    for name, entry in write_index(Path(__file__).parent).items():
        print(f"{name}: with {', '.join(entry['companions']) or 'no companions'}")
