"""Single layers in float16, by explicit casts, inside an INT8 or float32 graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from derain.errors import CalibrationError

if TYPE_CHECKING:
    import onnx

_LARGEST = float(np.finfo(np.float16).max)


def to_half(model: onnx.ModelProto, chosen: frozenset[str]) -> onnx.ModelProto:
    """A copy in which the chosen convolutions and matrix products compute in float16; what is around them does not.

    Unlike ``derain export --fp16``, which converts whole stretches of a graph, this leaves every tensor between layers
    in the type it has: between the Q/DQ pairs of an INT8 graph there is nothing else to convert.

    Raises:
        CalibrationError: a weight does not fit into float16.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    halves: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if node.name not in chosen:
            nodes.append(node)
            continue
        for position, name in enumerate(node.input):
            if name in weights:
                node.input[position] = f"{name}_half"
                halves.setdefault(name, _half(weights[name]))
            elif name:
                inner = f"{name}_for_{node.output[0]}"
                nodes.append(
                    onnx.helper.make_node(
                        "Cast", [name], [inner], f"{node.name}/Cast.{position}", to=onnx.TensorProto.FLOAT16
                    )
                )
                node.input[position] = inner
        output = node.output[0]
        node.output[0] = f"{output}_half"
        nodes.append(node)
        nodes.append(
            onnx.helper.make_node("Cast", [node.output[0]], [output], f"{node.name}/Cast", to=onnx.TensorProto.FLOAT)
        )
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in used]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend([*kept, *halves.values()])
    del copy.graph.value_info[:]
    return copy


def _half(weight: onnx.TensorProto) -> onnx.TensorProto:
    from onnx import numpy_helper

    values = numpy_helper.to_array(weight)
    largest = float(np.abs(values).max(initial=0))
    if largest > _LARGEST:
        raise CalibrationError(
            f"Weight '{weight.name}' holds {largest:g}", expected=f"at most {_LARGEST:g} for float16"
        )
    return numpy_helper.from_array(values.astype(np.float16), f"{weight.name}_half")
