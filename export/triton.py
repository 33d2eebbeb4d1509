"""A model repository for NVIDIA Triton, so that many cameras share one engine that others maintain.

Field names and their meaning: Triton's model configuration, ``model_config.proto``. The tests parse what is written
here with the schema in tritonclient.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from derain.card import ModelCard, Port, read_card
from derain.errors import UsageError
from derain.files import atomic_path
from derain.sizes import Shape

Backend = Literal["onnxruntime", "tensorrt"]
QUEUE_DELAY_MICROSECONDS = 2000  # about a tenth of a frame at 60 Hz: worth waiting for a second camera
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}


def write_repository(model: Path, folder: Path, backend: Backend = "onnxruntime") -> Path:
    """Write ``folder/NAME/config.pbtxt`` and the model as version 1 beside it.

    Args:
        model: an exported file; NAME is that of its card.
        folder: the repository; other models in it are left alone.
        backend: ``onnxruntime`` serves the file itself, on a GPU or CPU. ``tensorrt`` serves an engine, which must be
            built on the server: its place is ``folder/NAME/1/model.plan``.

    Returns:
        The model's folder.

    Raises:
        UsageError: the card's name cannot be a folder, or the file is half of a tiled form.
    """
    card = read_card(model)
    if card.part in ("context", "tile"):
        raise UsageError(f"'{model}' is half of a tiled form", expected="the whole network, or --part attention")
    name = f"{card.name}-attention" if card.part == "attention" else card.name
    require_folder_name(name)
    place = folder / name
    with atomic_path(place / "1" / "model.onnx") as temporary:
        shutil.copyfile(model, temporary)
    with atomic_path(place / "config.pbtxt") as temporary:
        temporary.write_text(configuration(card, name, backend), encoding="utf-8")
    return place


def require_folder_name(name: str) -> None:
    """A model's name is that of its folder.

    Raises:
        UsageError: it cannot be one.
    """
    if not name or any(letter in name for letter in '/\\:*?"<>|\0') or name.startswith("."):
        raise UsageError(f"The model's name '{name}' cannot be a folder", fix="Export it with --name")


def configuration(card: ModelCard, name: str, backend: Backend = "onnxruntime") -> str:
    """``config.pbtxt`` as text.

    Triton batches requests of equal shape up to the profile's largest batch. One that arrives alone waits at most
    ``QUEUE_DELAY_MICROSECONDS``. The warm-up runs the optimum size once before the model is reported ready.
    """
    largest = card.profile.max[0]
    lines = [
        f"# Written by derain {card.derain_version} from the model card of {_quoted(card.name)}.",
        f"name: {_quoted(name)}",
        'platform: "tensorrt_plan"' if backend == "tensorrt" else 'backend: "onnxruntime"',
        f"max_batch_size: {largest}",
    ]
    for title, ports in (("input", card.inputs), ("output", card.outputs)):
        for port in ports:
            dims = ", ".join(map(str, _dimensions(port, card)))
            lines.append(
                f"{title} [ {{ name: {_quoted(port.name)} data_type: {_TYPES[port.dtype]} dims: [ {dims} ] }} ]"
            )
    lines.append("instance_group [ { count: 1 kind: KIND_AUTO } ]")
    if largest > 1:
        preferred = ", ".join(str(size) for size in (2, 4, 8, 16) if size <= largest)
        lines.append(
            f"dynamic_batching {{ preferred_batch_size: [ {preferred} ] "
            f"max_queue_delay_microseconds: {QUEUE_DELAY_MICROSECONDS} }}"
        )
    lines += ["model_warmup [ {", '  name: "optimum"', f"  batch_size: {card.profile.opt[0]}"]
    for port in card.inputs:
        dims = ", ".join(map(str, _sizes(port, card.profile.opt)))
        kind = _TYPES[port.dtype]
        lines.append(
            f"  inputs {{ key: {_quoted(port.name)} value {{ data_type: {kind} dims: [ {dims} ] random_data: true }} }}"
        )
    lines.append("} ]")
    return "\n".join(lines) + "\n"


def _dimensions(port: Port, card: ModelCard) -> list[int]:
    """Shape without the batch; -1 where it varies."""
    low, high = _sizes(port, card.profile.min), _sizes(port, card.profile.max)
    return [a if a == b else -1 for a, b in zip(low, high, strict=True)]


def _sizes(port: Port, shape: Shape) -> list[int]:
    halve = 2 if port.channels == "UV" else 1
    channels = {"BGR": 3, "RGB": 3, "UV": 2}.get(port.channels, 1)
    letters = {"H": shape[1] // halve, "W": shape[2] // halve, "C": channels}
    return [letters[letter] for letter in port.layout[1:]]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
