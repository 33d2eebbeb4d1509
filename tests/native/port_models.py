"""Models whose ports are not one uint8 picture: the planes of NV12, float16, and an extractor alone."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from derain.card import CARD_KEY, ModelCard, Port

ATTENTION = Port(name="attention", layout="NHW", dtype="float32", channels="attention", value_range=(0, 1))


def save_nv12(standin: ModuleType, path: Path, yuv: str = "bt709-limited") -> Path:
    """A model that paints Y as blue, U as green and V as red, and gives Y as attention."""
    card = standin.card_of(
        yuv=yuv,
        inputs=[
            Port(name="y", layout="NHW", dtype="uint8", channels="Y", value_range=(0, 255)),
            Port(name="uv", layout="NHWC", dtype="uint8", channels="UV", value_range=(0, 255)),
        ],
    )
    cast = {"to": TensorProto.FLOAT}
    nodes = [
        helper.make_node("Cast", ["y"], ["luma"], **cast),
        helper.make_node("Unsqueeze", ["luma", "last"], ["luma_last"]),
        helper.make_node("Cast", ["uv"], ["chroma"], **cast),
        helper.make_node("Transpose", ["chroma"], ["chroma_planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Resize",
            ["chroma_planes", "", "scales"],
            ["large"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Transpose", ["large"], ["chroma_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Concat", ["luma_last", "chroma_last"], ["stacked"], axis=3),
        helper.make_node("Cast", ["stacked"], ["derained"], to=TensorProto.UINT8),
        helper.make_node("Mul", ["luma", "fraction"], ["attention"]),
    ]
    constants = {
        "last": np.array([-1], np.int64),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "fraction": np.float32(1 / 255),
    }
    inputs = [
        helper.make_tensor_value_info("y", TensorProto.UINT8, [1, "H", "W"]),
        helper.make_tensor_value_info("uv", TensorProto.UINT8, [1, "H2", "W2", 2]),
    ]
    outputs = [
        helper.make_tensor_value_info("derained", TensorProto.UINT8, [1, "H", "W", 3]),
        helper.make_tensor_value_info("attention", TensorProto.FLOAT, [1, "H", "W"]),
    ]
    return _save(path, nodes, inputs, outputs, constants, card)


def save_half(standin: ModuleType, path: Path, pictures: bool = True) -> Path:
    """The stand-in with float16 planes in [0, 1] in and out, and a float16 map; or uint8 frames and that map."""
    form = "float" if pictures else "uint8"
    halves = ("frame", "derained", "attention") if pictures else ("attention",)
    model = onnx.load(str(standin.save_model(path, form)))

    def in_half(ports: list[Port]) -> list[Port]:
        return [port.model_copy(update={"dtype": "float16"}) if port.name in halves else port for port in ports]

    base = standin.card_of(form)
    card = standin.card_of(form, inputs=in_half(base.inputs), outputs=in_half(base.outputs))
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name in halves:
                    names[index] = f"{name}_float"
    for value in (*model.graph.input, *model.graph.output):
        if value.name in halves:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for name in halves:
        if name == "frame":
            cast = helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT)
            model.graph.node.insert(0, cast)
        else:
            model.graph.node.append(helper.make_node("Cast", [f"{name}_float"], [name], to=TensorProto.FLOAT16))
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, str(path))
    return path


def save_extractor(standin: ModuleType, path: Path, gain: float = 1) -> Path:
    """The attention part: the mean of a BGR frame's channels, times ``gain``, over 255."""
    card = standin.card_of(part="attention", outputs=[ATTENTION])
    nodes = [
        helper.make_node("Cast", ["frame"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "channels"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["attention"]),
    ]
    constants = {"channels": np.array([3], np.int64), "scale": np.float32(gain / 255)}
    inputs = [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, "H", "W", 3])]
    outputs = [helper.make_tensor_value_info("attention", TensorProto.FLOAT, [1, "H", "W"])]
    return _save(path, nodes, inputs, outputs, constants, card)


def _save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any], card: ModelCard
) -> Path:
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "standin", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, str(path))
    return path


def painted(y: NDArray[np.uint8], uv: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What :func:`save_nv12` makes of two planes."""
    chroma = uv.repeat(2, 0).repeat(2, 1)
    return np.dstack([y, chroma])
