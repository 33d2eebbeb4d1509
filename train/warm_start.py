"""Warm start: a run begins with the weights of another run's checkpoint, or of an exported model, as far as they fit.

For a researcher who has an hour of his own rain and not a day, and for a network that was changed in one place. The new
run has its own recipe, schedule and averages; only weights are taken.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from derain.errors import CheckpointError
from derain.files import file_sha256
from derain.train.checkpoint import read_checkpoint
from derain.train.exported_weights import read_exported
from derain.train.recipe import parse_recipe
from derain.train.systems.base import System

_LEAST_SHARE = 0.5
"""Less of the derainer than this would not be a warm start but a misunderstanding."""


def warm_start(system: System, source: Path) -> dict[str, str]:
    """Copy what fits by name and shape into ``system``.

    Of a checkpoint the derainer's averaged (EMA) weights and the other networks; of an exported ``.onnx`` file the
    derainer, which is all that it holds. Image pools and whatever else is not a parameter or an average stay as new.

    Returns:
        Name and SHA-256 of the file and, where something of the derainer began anew, what: for the log, the new
        checkpoint and the model card.

    Raises:
        CheckpointError, ModelFileError: the file cannot be used, or less than half of the derainer's values fit.
        MissingDependencyError: an ONNX file, and onnx is not installed.
    """
    name, offered = _exported(system, source) if source.suffix == ".onnx" else _checkpoint(source)
    own = system.state_dict()
    fitting = {key: value for key, value in offered.items() if _fits(own.get(key), value)}
    derainer = {key: value.numel() for key, value in own.items() if key.startswith("derainer.")}
    share = sum(count for key, count in derainer.items() if key in fitting) / max(1, sum(derainer.values()))
    if share < _LEAST_SHARE:
        raise CheckpointError(
            f"Only {share:.0%} of the derainer's weights fit those of '{source}' ('{name}')",
            expected="a checkpoint or an exported model of nearly the same network",
            fix="Begin from one of this system and size, or without --init",
        )
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)
    fresh = sorted({key.removeprefix("derainer.").split(".")[0] for key in derainer if key not in fitting})
    origin = {"name": name, "sha256": file_sha256(source)}
    return origin | ({"new": ", ".join(fresh)} if fresh else {})


def _checkpoint(path: Path) -> tuple[str, dict[str, Tensor]]:
    state = read_checkpoint(path)
    averaged = {f"derainer.{key}": value for key, value in state["derainer"].items()}
    others = {key: value for key, value in state["system"].items() if not key.startswith(("derainer.", "pool_"))}
    return parse_recipe(state["recipe"], str(path)).name, others | averaged


def _exported(system: System, path: Path) -> tuple[str, dict[str, Tensor]]:
    card, weights = read_exported(path, system.derainer)
    return card.name, {f"derainer.{key}": value for key, value in weights.items()}


def _fits(own: Tensor | None, offered: object) -> bool:
    return own is not None and isinstance(offered, Tensor) and own.shape == offered.shape
