"""Checkpoints: everything a run needs to go on exactly, and what export needs to rebuild the deployable."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from derain.errors import CheckpointError
from derain.files import atomic_path, check_size
from derain.train.deployable import Deployable
from derain.train.networks.reparam import fold_branches
from derain.train.recipe import Recipe, parse_recipe
from derain.train.systems import System, find_system

FORMAT = 1
_MAX_BYTES = 8 << 30
_KEYS = {
    "format": int,
    "recipe": str,
    "step": int,
    "minutes": float,
    "data": list,
    "quality": list,
    "system": dict,
    "derainer": dict,
    "optimizers": dict,
    "alarms": dict,
}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a model card tells of the run.

    Attributes:
        minutes: time spent training, wall clock, over all resumed parts.
        quality: figures measured at the end of the run, each valid as :class:`derain.card.Quality`.
        teacher: name and SHA-256 of the checkpoint that the run was distilled from; empty if none.
        begun_from: name and SHA-256 of the checkpoint whose weights the run began with, and under ``new`` the parts
            that did not come from there; empty if it began from random weights.
        quantization: of quantization-aware training, valid as :class:`derain.card.TrainedRanges`; None of any other.
    """

    name: str
    system: str
    variant: str
    step: int
    seed: int
    data: list[str]
    recipe_toml: str
    description: str
    minutes: float
    quality: list[dict[str, Any]]
    teacher: dict[str, str] = field(default_factory=dict)
    begun_from: dict[str, str] = field(default_factory=dict)
    quantization: dict[str, Any] | None = None


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically: a kill leaves the old one or the new one."""
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint without running any code that it might hold (``weights_only``), on the CPU.

    Raises:
        CheckpointError: missing, damaged, not a derain checkpoint, or of a newer format.
    """
    path = Path(path)
    fix = "Use a .ckpt file written by derain train"
    check_size(path, _MAX_BYTES, CheckpointError)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise nearly anything for bytes that are no checkpoint
        # Of a refused pickle torch tells how to load it all the same, which is the last thing to do.
        refused = isinstance(error, pickle.UnpicklingError)
        said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        reason = "it holds more than weights, or something else" if refused else said
        raise CheckpointError(f"'{path}' is not a readable checkpoint ({reason})", fix=fix) from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise CheckpointError(f"'{path}' is not a derain checkpoint", fix=fix)
    if state["format"] > FORMAT:
        raise CheckpointError(
            f"'{path}' has checkpoint format {state['format']}", expected=f"{FORMAT} or older", fix="Update derain"
        )
    for key, kind in _KEYS.items():
        if not isinstance(state.get(key), kind):
            raise CheckpointError(f"'{path}' has no valid entry '{key}'", fix=fix)
    return state


def load_deployable(path: str | Path) -> tuple[Deployable, CheckpointInfo]:
    """Rebuild the deployable of a checkpoint, in eval mode, with the averaged (EMA) weights and its branches folded.

    Raises:
        CheckpointError: the checkpoint cannot be used, or its weights do not fit the system its recipe names.
    """
    state = read_checkpoint(path)
    recipe = parse_recipe(state["recipe"], str(path))
    derainer = find_system(recipe.system)(recipe.system_config()).derainer
    load_weights(derainer, state["derainer"], str(path))
    fold_branches(derainer)
    derainer.eval()
    spec = derainer.spec
    info = CheckpointInfo(
        name=recipe.name,
        system=spec.system,
        variant=spec.variant,
        step=state["step"],
        seed=recipe.seed,
        data=[str(item) for item in state["data"]],
        recipe_toml=state["recipe"],
        description=recipe.description,
        minutes=state["minutes"],
        quality=state["quality"],
        teacher=state.get("teacher", {}),
        begun_from=state.get("begun_from", {}),
        quantization=state.get("quantization"),
    )
    return derainer, info


def load_system(path: str | Path) -> tuple[System, Recipe]:
    """Rebuild the whole system of a checkpoint, in eval mode, with the weights of its last step, and read its recipe.

    Raises:
        CheckpointError: the checkpoint cannot be used, or its weights do not fit the system its recipe names.
    """
    state = read_checkpoint(path)
    recipe = parse_recipe(state["recipe"], str(path))
    system = find_system(recipe.system)(recipe.system_config())
    load_weights(system, state["system"], str(path))
    return system.eval(), recipe


def load_weights(module: torch.nn.Module, weights: dict[str, Any], origin: str) -> None:
    """Fill a module; every name and shape must fit.

    Raises:
        CheckpointError: the weights belong to another network.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"The weights in '{origin}' do not fit the network its recipe describes ({reason})",
            fix="Train from the start, or use the recipe that the checkpoint was made with",
        ) from error
