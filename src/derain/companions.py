"""The files that lie beside a model: parts of its network that the rain gate and tiling run alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

Companion: TypeAlias = Literal["attention", "tile", "context"]
_NAMES: dict[Companion, str] = {"attention": "attention", "tile": "tile", "context": "tile.context"}
COMPANIONS = tuple(_NAMES)


def beside(model: Path, part: Companion) -> Path:
    """Where a part is looked for: beside ``edge.onnx`` as ``edge.attention.onnx``, ``edge.tile.onnx`` and
    ``edge.tile.context.onnx``.
    """
    return model.with_name(f"{model.stem}.{_NAMES[part]}.onnx")
