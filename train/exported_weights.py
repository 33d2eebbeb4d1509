"""Weights back out of an exported ONNX file, as the network that it was made of holds them.

So that a shipped model, of which no checkpoint is at hand, can be adapted to one's own rain. An export keeps the names
of the weights; where it computes on cells of 4x4 pixels, it has put channel order and levels into the first and last
layers (:mod:`derain.export.cells`), and that is undone here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from derain.card import ModelCard, read_card
from derain.errors import MissingDependencyError, ModelFileError
from derain.files import check_size
from derain.train.deployable import CellDeployable, Deployable

_MAX_BYTES = 2 << 30
_PREFIX = "network."
_CELL = 4
_LEVELS = 255.0


def read_exported(path: Path, derainer: Deployable) -> tuple[ModelCard, dict[str, Tensor]]:
    """The card of a float32 file and the weights in it that ``derainer`` has by name, in its shapes and channel order.

    Raises:
        ModelFileError: not an exported whole network in float32, or damaged.
        MissingDependencyError: onnx is not installed.
    """
    card = read_card(path)
    if card.precision.kind != "float32" or card.part != "whole":
        raise ModelFileError(
            f"'{path}' holds {'the whole network' if card.part == 'whole' else f'the part {card.part}'} "
            f"in {card.precision.kind}",
            expected="the whole network in float32",
            fix="Begin with the file that it was made from",
        )
    found = _stored(path)
    own = derainer.state_dict()
    weights = {key: found[key].reshape(value.shape) for key, value in own.items() if _same(found.get(key), value)}
    port = card.inputs[0]
    if isinstance(derainer, CellDeployable) and port.channels in ("BGR", "RGB") and port.dtype == "uint8":
        _undo_cells(weights, derainer, (0, 1, 2) if port.channels == "RGB" else (2, 1, 0))
    return card, weights


def _stored(path: Path) -> dict[str, Tensor]:
    """Every weight of the network in the file, by its name in the network."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("onnx", needed_for="reading weights from an ONNX file", extra="export") from error

    check_size(path, _MAX_BYTES, ModelFileError)
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        # A copy: the tensor's own memory is read-only and goes with the file.
        held = {
            tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer
        }
    except Exception as error:  # protobuf's and onnx's own, for whatever bytes there are
        raise ModelFileError(f"'{path}' is damaged ({error})", fix="Export the model again") from error
    found = {name.removeprefix(_PREFIX): value for name, value in held.items() if name.startswith(_PREFIX)}
    # Equal weights are stored once, under one of their names: a layer's node tells which are its own.
    for node in graph.node:
        layer = node.name.rpartition("/")[0].replace("/", ".")
        for kind, name in zip(("weight", "bias"), node.input[1:], strict=False):
            if node.op_type == "Conv" and name in held:
                found.setdefault(f"{layer}.{kind}", held[name])
    return found


def _same(stored: Tensor | None, own: Tensor) -> bool:
    """Alike but for sides of one: a linear layer is exported as a convolution of one pixel."""
    return stored is not None and [n for n in stored.shape if n > 1] == [n for n in own.shape if n > 1]


def _undo_cells(weights: dict[str, Tensor], network: CellDeployable, order: Sequence[int]) -> None:
    names = {module: name for name, module in network.named_modules()}

    def change(layer: nn.Conv2d, kind: str, undo: Callable[[Tensor], Tensor]) -> None:
        key = f"{names[layer]}.{kind}"
        if key in weights:
            weights[key] = undo(weights[key])

    for layer in network.picture_readers():
        change(layer, "weight", lambda weight: _reordered(weight, order))
    change(network.pooled_reader(), "weight", lambda weight: _reordered(weight, order) * _LEVELS)
    for kind in ("weight", "bias"):
        change(network.streak_writer(), kind, lambda values: _from_levels(values, order))


def _reordered(weight: Tensor, order: Sequence[int]) -> Tensor:
    """Input channels, several times three, from the frame's order to R, G, B; either order undoes itself."""
    groups = weight.reshape(weight.shape[0], -1, 3, *weight.shape[2:])
    return groups[:, :, list(order)].reshape_as(weight)


def _from_levels(values: Tensor, order: Sequence[int]) -> Tensor:
    """From negative levels by row, column, colour of the frame, to streaks by R, G, B, row, column."""
    places = values.reshape(_CELL, _CELL, 3, *values.shape[1:]).movedim(2, 0)[list(order)]
    return (places / -_LEVELS).reshape_as(values)
