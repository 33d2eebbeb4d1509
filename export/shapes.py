"""Sizes read in the form that every tool folds: a whole shape, of which numbers are picked.

``Shape`` has ``start`` and ``end`` since opset 15, and torch's exporter writes them. onnx-graphsurgeon 0.6 (which is
behind Polygraphy's ``--fold-constants``) and onnxslim before 0.1.70 overlook them: once a size is fixed they put the
whole shape in the place of one number, and the graph pads wrongly or is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from derain.folding import complete_names

if TYPE_CHECKING:
    import onnx


def plain_shapes(model: onnx.ModelProto) -> None:
    """Rewrite in place: each ``Shape`` of a part becomes a ``Gather`` from the one whole ``Shape`` of that tensor."""
    from onnx import helper, numpy_helper

    ranks = _ranks(model)
    whole: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        ends = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type != "Shape" or not ends:
            nodes.append(node)
            continue
        source = node.input[0]
        picked = np.arange(ranks[source], dtype=np.int64)[ends.get("start", 0) : ends.get("end")]
        if source not in whole:
            whole[source] = f"{source}_shape"
            nodes.append(helper.make_node("Shape", [source], [whole[source]], node.name))
        index = f"axes_{'_'.join(map(str, picked))}"
        if all(tensor.name != index for tensor in model.graph.initializer):
            model.graph.initializer.append(numpy_helper.from_array(picked, index))
        layer = node.name.rpartition("/")[0]
        nodes.append(helper.make_node("Gather", [whole[source], index], [node.output[0]], f"{layer}/Gather", axis=0))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    complete_names(model)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.input, *graph.value_info)}
    return values | {tensor.name: len(tensor.dims) for tensor in graph.initializer}
