"""Each tensor's range by the method that suits it: the one whose rounding of this tensor alone costs the picture least.

A method that is right for most tensors can be wrong for one: behind the last stage bright streaks are rare and large,
and a percentile that cuts them off costs more than all other rounding together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from derain.calibration.layers import Layers, tensors_of
from derain.calibration.ranges import Method, Ranges
from derain.calibration.session import open_session

if TYPE_CHECKING:
    import onnx

Feed = dict[str, NDArray[Any]]
_SCALE = "derain_scale_of_one_tensor"
# Narrower than any method: worth trying where large values matter little to the picture.
_NARROWER = 0.7


def mixed_ranges(
    model: onnx.ModelProto,
    layers: Layers,
    tried: dict[Method, Ranges],
    feeds: Sequence[Feed],
    bearable: Sequence[float],
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Ranges:
    """Choose each tensor's range among those of all methods, and one narrower still.

    Args:
        model: float32.
        layers: of it.
        tried: the methods' ranges of all its tensors.
        feeds: inputs of a few frames to measure with.
        bearable: for each of them the mean square error of the float32 model's picture, in the units of the picture
            that the graph gives: how much more error it bears.
        say: told each tensor.
    """
    picture = picture_before_rounding(model)
    plain = open_session(_with_output(model, picture))
    exact = [np.asarray(plain.run([picture], feed)[0], np.float32) for feed in feeds]
    names = tensors_of(model, layers)
    chosen: dict[str, float] = {}
    for number, name in enumerate(names, 1):
        say(f"range of tensor {number} of {len(names)}")
        candidates = sorted({ranges.largest[name] for ranges in tried.values()})
        candidates = [_NARROWER * candidates[0], *candidates]
        session = open_session(_with_output(_rounding_one(model, layers, name), picture))
        costs = []
        for largest in candidates:
            scale = np.array(largest / 127, np.float32)
            errors = [
                float(np.mean(np.square(session.run([picture], feed | {_SCALE: scale})[0] - wanted)))
                for feed, wanted in zip(feeds, exact, strict=True)
            ]
            costs.append(np.mean(np.log1p(np.array(errors) / np.array(bearable))))
        chosen[name] = candidates[int(np.argmin(costs))]
    return Ranges("mixed", chosen)


def picture_before_rounding(model: onnx.ModelProto) -> str:
    """The tensor that the derained picture is rounded from; of a graph without Round, the picture itself."""
    makers = {name: node for node in model.graph.node for name in node.output}
    name = model.graph.output[0].name
    while name in makers:
        if makers[name].op_type == "Round":
            return str(makers[name].input[0])
        name = makers[name].input[0]
    return model.graph.output[0].name


def _with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if name not in {value.name for value in copy.graph.output}:
        copy.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return copy


def _rounding_one(model: onnx.ModelProto, layers: Layers, tensor: str) -> onnx.ModelProto:
    """A copy in which all layers that may compute in INT8 read this tensor rounded, its scale being one more input."""
    import onnx
    from onnx import TensorProto, helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    readers = {*layers.convolutions, *layers.additions}
    zero, whole, rounded = (f"{_SCALE}.{part}" for part in ("zero", "int8", "rounded"))
    copy.graph.initializer.append(helper.make_tensor(zero, TensorProto.INT8, [], [0]))
    copy.graph.input.append(helper.make_tensor_value_info(_SCALE, TensorProto.FLOAT, []))
    made = False
    for node in model.graph.node:
        if node.name not in readers or tensor not in node.input:
            copy.graph.node.append(node)
            continue
        if not made:
            made = True
            copy.graph.node.append(helper.make_node("QuantizeLinear", [tensor, _SCALE, zero], [whole]))
            copy.graph.node.append(helper.make_node("DequantizeLinear", [whole, _SCALE, zero], [rounded]))
        reader = onnx.NodeProto()
        reader.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name == tensor:
                reader.input[position] = rounded
        copy.graph.node.append(reader)
    return copy
