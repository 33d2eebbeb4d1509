"""A deraining graph small enough to quantize in a moment, with all that makes it hard, built without torch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from derain.calibration.describe_model import set_card
from derain.card import Cost, Geometry, ModelCard, Port, Precision, Profile

WIDTH = 16
CONVOLUTIONS = ["stem/Conv", "stage/Conv", "stage/Conv.2", "attention/Conv", "tail/Conv"]
DYNAMIC = Profile(min=(1, 16, 16), opt=(1, 64, 96), max=(1, 256, 256))

Frame = NDArray[np.uint8]


def tiny_model(profile: Profile = DYNAMIC, tail: float = 0.15) -> onnx.ModelProto:
    """Stride-4 stem, a stage run twice with shared weights, residual additions, a whole-frame context, a rain map.

    The stem also feeds the image residual, so quantizing its input must not touch that. Sides must be multiples of 4.
    """
    random = np.random.default_rng(5)
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, values: object, kind: type = np.float32) -> str:
        weights.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def add(operator: str, inputs: list[str], output: str, name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def kernel(name: str, outputs: int, inputs: int, side: int, gain: float = 1.0) -> None:
        spread = gain * (2 / (inputs * side * side)) ** 0.5
        constant(f"{name}.weight", random.normal(0, spread, (outputs, inputs, side, side)))
        constant(f"{name}.bias", random.normal(0, 0.05, outputs))

    def conv(name: str, weight: str, source: str, output: str, pad: int = 1, stride: int = 1) -> str:
        inputs = [source, f"{weight}.weight", f"{weight}.bias"]
        return add("Conv", inputs, output, name, pads=[pad] * 4, strides=[stride] * 2)

    kernel("stem", WIDTH, 3, 4)
    kernel("stage", WIDTH, WIDTH, 3)
    kernel("attention", 16, WIDTH, 3)
    kernel("tail", 48, WIDTH, 3, tail)
    kernel("context", 3, 3, 1, 0.2)
    add("Cast", ["frame"], "levels", "camera/Cast", to=TensorProto.FLOAT)
    add("Transpose", ["levels"], "planes", "camera/Transpose", perm=[0, 3, 1, 2])
    add("Gather", ["planes", constant("order", [2, 1, 0], np.int64)], "rgb", "camera/Gather", axis=1)
    add("Mul", ["rgb", constant("unit", 1 / 255)], "picture", "camera/Mul")
    add("ReduceMean", ["picture", constant("sides", [2, 3], np.int64)], "mean", "context/ReduceMean")
    conv("context/Conv", "context", "mean", "affine", pad=0)
    h0 = conv("stem/Conv", "stem", "picture", "h0", pad=0, stride=4)
    h = h0
    for turn, suffix in ((1, ""), (2, ".2")):
        update = conv(f"stage/Conv{suffix}", "stage", h, f"update{turn}")
        update = add("LeakyRelu", [update], f"act{turn}", f"stage/LeakyRelu{suffix}", alpha=0.1)
        h = add("Add", [h, update], f"h{turn}", f"stage/Add{suffix}")
    rain = conv("attention/Conv", "attention", h, "rain_cells")
    add("HardSigmoid", [rain], "rain_unit", "attention/HardSigmoid", alpha=1 / 6, beta=0.2)
    add("DepthToSpace", ["rain_unit"], "rain_map", "camera/DepthToSpace", blocksize=4, mode="CRD")
    add("Squeeze", ["rain_map", constant("one", [1], np.int64)], "attention", "camera/Squeeze")
    conv("tail/Conv", "tail", h, "cells")
    add("DepthToSpace", ["cells"], "streaks", "tail/DepthToSpace", blocksize=4, mode="CRD")
    add("Add", ["picture", "affine"], "shifted", "residual/Add")
    add("Sub", ["shifted", "streaks"], "raw", "residual/Sub")
    add("Clip", ["raw", constant("low", 0.0), constant("high", 1.0)], "clipped", "camera/Clip")
    add("Mul", ["clipped", constant("peak", 255.0)], "scaled", "camera/Mul.2")
    add("Round", ["scaled"], "rounded", "camera/Round")
    add("Gather", ["rounded", "order"], "bgr", "camera/Gather.2", axis=1)
    add("Transpose", ["bgr"], "rows", "camera/Transpose.2", perm=[0, 2, 3, 1])
    add("Cast", ["rows"], "derained", "camera/Cast.2", to=TensorProto.UINT8)

    sides: list[str | int] = list(profile.opt[1:]) if profile.fixed else ["height", "width"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, *sides, 3])],
        [
            helper.make_tensor_value_info("derained", TensorProto.UINT8, [1, *sides, 3]),
            helper.make_tensor_value_info("attention", TensorProto.FLOAT, [1, *sides]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    set_card(model, tiny_card(profile))
    return model


def tiny_card(profile: Profile = DYNAMIC) -> ModelCard:
    return ModelCard(
        name="tiny", system="tiny", variant="edge",
        inputs=[Port(name="frame", layout="NHWC", dtype="uint8", channels="BGR", value_range=(0, 255))],
        outputs=[
            Port(name="derained", layout="NHWC", dtype="uint8", channels="BGR", value_range=(0, 255)),
            Port(name="attention", layout="NHW", dtype="float32", channels="attention", value_range=(0, 1)),
        ],
        attention="learned",
        geometry=Geometry(multiple_of=4, minimum=16, receptive_field=None, tiling="unsound", tiling_reason="a test"),
        profile=profile, opset=18, precision=Precision(kind="float32"),
        cost=Cost(parameters=1, kmac_per_pixel=1.0), licence="none", derain_version="0",
    )  # fmt: skip


def scene(seed: int, height: int = 64, width: int = 96, rain: float = 60.0) -> tuple[Frame, Frame]:
    """A rainy frame and its truth, uint8 (H, W, 3) BGR: smooth light with a few shapes, bright slanted streaks."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(30, 220, (4, 6, 3)).astype(np.float32)
    clean = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(3):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        colour = [float(value) for value in random.uniform(0, 255, 3)]
        cv2.circle(clean, (x, y), int(random.integers(4, 14)), colour, -1)
    drops = (random.random((height, width)) > 0.985).astype(np.float32)
    streaks = cv2.filter2D(drops, -1, np.eye(9, dtype=np.float32))
    rainy = clean + rain * np.minimum(streaks, 1)[..., None]
    return (np.clip(rainy, 0, 255).round().astype(np.uint8), np.clip(clean, 0, 255).round().astype(np.uint8))


def write_pairs(folder: Path, count: int, first: int = 0) -> Path:
    """A folder of pairs."""
    from derain.images import write_image

    for number in range(count):
        rainy, clean = scene(first + number)
        write_image(folder / "rainy" / f"{number:02}.png", rainy)
        write_image(folder / "clean" / f"{number:02}.png", clean)
    return folder
