"""Small ONNX models with a card, made on the spot: a box blur or the identity in the place of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from derain.card import CARD_KEY, Cost, Geometry, ModelCard, Port, Precision, Profile

Form = Literal["uint8", "uint8_rgb", "float"]
_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def card_of(form: Form = "uint8", **changes: Any) -> ModelCard:
    if form == "float":
        picture = {"layout": "NCHW", "dtype": "float32", "channels": "RGB", "value_range": (0, 1)}
    else:
        order = "RGB" if form == "uint8_rgb" else "BGR"
        picture = {"layout": "NHWC", "dtype": "uint8", "channels": order, "value_range": (0, 255)}
    fields: dict[str, Any] = {
        "name": "standin",
        "system": "acgf",
        "variant": "edge",
        "inputs": [Port(name="frame", **picture)],
        "outputs": [
            Port(name="derained", **picture),
            Port(name="attention", layout="NHW", dtype="float32", channels="attention", value_range=(0, 1)),
        ],
        "attention": "learned",
        "geometry": Geometry(
            multiple_of=1, minimum=1, receptive_field=3, tiling="sound", tiling_reason="three by three pixels"
        ),
        "profile": Profile(min=(1, 1, 1), opt=(1, 480, 640), max=(1, 4096, 4096)),
        "opset": 18,
        "precision": Precision(kind="float32"),
        "cost": Cost(parameters=0, kmac_per_pixel=0.009),
        "licence": "Apache-2.0",
        "derain_version": "0.1.0",
    }
    return ModelCard(**{**fields, **changes})


def _dimensions(port: Port, fixed: tuple[int, int, int] | None) -> list[int | str]:
    batch, height, width = fixed or ("B", "H", "W")
    if port.layout == "NHW":
        return [batch, height, width]
    return [batch, height, width, 3] if port.layout == "NHWC" else [batch, 3, height, width]


def save_model(path: Path, form: Form = "uint8", blur: bool = True, card: ModelCard | None = None) -> Path:
    """Write a model: a 3x3 box blur (or the identity), and the mean of the derained channels as attention.

    Colours matter: red loses a quarter, so that a swapped channel order shows.
    """
    card = card or card_of(form)
    integer = card.inputs[0].dtype == "uint8"
    red = 0 if card.inputs[0].channels == "RGB" else 2
    kernel: NDArray[np.float32] = np.zeros((3, 1, 3, 3), np.float32)
    if blur:
        kernel[:] = 1 / 9
    else:
        kernel[:, :, 1, 1] = 1
    gain: NDArray[np.float32] = np.ones((1, 3, 1, 1), np.float32)
    gain[0, red] = 0.75
    constants = {
        "kernel": kernel,
        "gain": gain,
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "low": np.float32(0),
        "high": np.float32(255 if integer else 1),
        "scale": np.float32(1 / 255 if integer else 1),
        "channel_axis": np.array([1], np.int64),
    }
    nodes = []
    if integer:
        nodes += [
            helper.make_node("Cast", ["frame"], ["as_float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["as_float"], ["planes"], perm=[0, 3, 1, 2]),
        ]
    else:
        nodes += [helper.make_node("Identity", ["frame"], ["planes"])]
    nodes += [
        helper.make_node("Pad", ["planes", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "kernel"], ["filtered"], group=3),
        helper.make_node("Mul", ["filtered", "gain"], ["weighted"]),
        helper.make_node("Clip", ["weighted", "low", "high"], ["clipped"]),
        helper.make_node("ReduceMean", ["clipped", "channel_axis"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["attention"]),
    ]
    if integer:
        nodes += [
            helper.make_node("Round", ["clipped"], ["rounded"]),
            helper.make_node("Transpose", ["rounded"], ["channels_last"], perm=[0, 2, 3, 1]),
            helper.make_node("Cast", ["channels_last"], ["derained"], to=TensorProto.UINT8),
        ]
    else:
        nodes += [helper.make_node("Identity", ["clipped"], ["derained"])]
    fixed = card.profile.opt if card.profile.fixed else None

    def values(ports: list[Port]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(p.name, _TYPES[p.dtype], _dimensions(p, fixed)) for p in ports]

    graph = helper.make_graph(
        nodes,
        "standin",
        values(card_of(form).inputs),
        values(card_of(form).outputs),
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, str(path))
    return path


def expected(frame: NDArray[np.uint8], blur: bool = True) -> NDArray[np.uint8]:
    """What the stand-in makes of a BGR frame, in NumPy."""
    padded = np.pad(frame.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = frame.shape[:2]
    total = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9
    result = (total if blur else frame.astype(np.float64)) * np.array([1, 1, 0.75])
    return np.round(result).astype(np.uint8)
