"""What a run of quantization-aware training starts from: the ranges of an INT8 file, and a short, gentle recipe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derain.card import TrainedRanges, read_card
from derain.errors import MissingDependencyError, ModelFileError
from derain.files import file_sha256
from derain.train.checkpoint import read_checkpoint
from derain.train.recipe import parse_recipe

if TYPE_CHECKING:
    import onnx

STEPS = 1000
# A fifth of the rate that networks of this size train at; the averages forget the start within the run.
_RATE = 2e-4
_EMA = 0.995
# What INT8 costs is to be won back, nothing new to be learned: the network as it was leads, and what its recipe taught
# it hardly counts. (With a weight of 50 the pairs changed what fog it clears, by two levels.) Dry crops, on
# which INT8's noise weighs most, are as many as of each other kind at least.
_DISTIL = 1000.0
_KINDS = ("pairs", "synthetic", "recombined")
_FLOAT16 = 10  # of onnx.TensorProto.DataType


def read_ranges(path: Path) -> TrainedRanges:
    """The arithmetic of an INT8 file, layer by layer.

    Raises:
        ModelFileError: not an INT8 file of ``derain calibrate``, or a tensor is rounded that training cannot round.
        MissingDependencyError: onnx is not installed.
    """
    card = read_card(path)
    if card.precision.kind != "int8":
        raise ModelFileError(
            f"'{path}' is of precision {card.precision.kind}",
            expected="an INT8 file of derain calibrate, whose ranges training keeps to",
            fix="Calibrate the exported checkpoint; a generous --max-drop will do",
        )
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingDependencyError("onnx", needed_for="derain train --qat", extra="export") from error
    model = onnx.load(str(path))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    magnitudes: dict[str, float] = {}
    rounded_of: dict[str, str] = {}
    inputs: dict[str, list[float]] = {}
    outputs: dict[str, float] = {}
    half: list[str] = []
    read: dict[str, list[str]] = {}
    written: dict[str, str] = {}
    for node in model.graph.node:
        rounded = [name for name in node.input if name in magnitudes]
        if node.op_type == "DequantizeLinear" and node.input[0] in producer:
            magnitudes[node.output[0]] = 127 * float(constants[node.input[1]])
            rounded_of[node.output[0]] = producer[node.input[0]].input[0]
        elif node.op_type in ("Conv", "Add") and rounded:
            inputs[node.name] = [magnitudes[name] for name in rounded]
            read.setdefault(rounded_of[rounded[0]], []).append(node.name)
        elif node.op_type in ("Conv", "MatMul") and _is_half(producer.get(node.input[0])):
            half.append(node.name)
        else:
            outputs.update((producer[rounded_of[name]].name, magnitudes[name]) for name in rounded)
            written.update((rounded_of[name], producer[rounded_of[name]].name) for name in rounded)
    equalized = []
    for entry in card.calibration.equalized if card.calibration is not None else []:
        tensors = [tensor for tensor, layers in read.items() if set(layers) & set(entry.inputs)]
        layers = [name for name in entry.inputs if name in inputs]
        results = [written[tensor] for tensor in tensors if tensor in written]
        if layers:
            equalized.append(entry.model_copy(update={"inputs": layers, "outputs": results}))
    source = f"'{card.name}', SHA-256 {file_sha256(path)[:16]}"
    return TrainedRanges(source=source, inputs=inputs, outputs=outputs, float16=half, equalized=equalized)


def _is_half(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "Cast" and any(a.i == _FLOAT16 for a in node.attribute)


def recipe_for(checkpoint: Path, steps: int | None) -> str:
    """The recipe, as TOML text, that fine-tunes a checkpoint: its own, shorter, at a low rate, with itself as teacher.

    Raises:
        CheckpointError: the file cannot be used.
    """
    own = parse_recipe(read_checkpoint(checkpoint)["recipe"], str(checkpoint))
    length = steps or STEPS
    optimizer = own.optimizer.model_dump(mode="json", exclude_unset=True) | {
        "learning_rate": _RATE,
        "discriminator_learning_rate": own.optimizer.discriminator_learning_rate / 10,
        "warmup": length // 20,
        "schedule": "cosine",
        "ema": _EMA,
    }
    largest = max(getattr(own.data, kind) for kind in _KINDS)
    document = own.model_dump(mode="json", exclude_unset=True) | {
        "name": f"{own.name}-int8"[:64],
        "description": own.description,
        "steps": length,
        "validate_every": max(1, length // 4),
        "checkpoint_every": max(1, length // 8),
        "optimizer": optimizer,
        "distil": {"checkpoint": str(checkpoint), "weight": _DISTIL},
        "data": own.data.model_dump(mode="json", exclude_unset=True) | {"dry": max(own.data.dry, largest)},
    }
    return to_toml(document)


def to_toml(document: dict[str, Any], prefix: str = "") -> str:
    """TOML of tables, strings, numbers, truth values and lists of those; None is left out."""
    lines = [f"{_key(k)} = {json.dumps(v)}" for k, v in document.items() if v is not None and not isinstance(v, dict)]
    for key, value in document.items():
        if isinstance(value, dict):
            table = prefix + _key(key)
            lines += ["", f"[{table}]", to_toml(value, f"{table}.")]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
