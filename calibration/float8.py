"""An INT8 graph of Q/DQ pairs turned into one of FP8 E4M3, for GPUs that compute in it (Ada, Hopper, Blackwell, Thor).

The pairs stay where they are and keep their ranges: 448, the largest number of E4M3, takes the place of 127. FP8 steps
grow with the value, so a wide range costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# The first opset whose QuantizeLinear has FP8.
OPSET = 19
LARGEST = 448.0


def to_float8(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Change a graph of :func:`derain.calibration.qdq.quantize` in place.

    Args:
        model: signed symmetric INT8, weights per channel; stored weights are called NAME_quantized.
        original: the float32 graph that it was made from; its weights are rounded anew.
    """
    from onnx import TensorProto, helper, numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    exact = {tensor.name: tensor for tensor in original.graph.initializer}
    made: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (stored[name] for name in node.input[1:3])
        small = (numpy_helper.to_array(scale) * (127 / LARGEST)).astype(np.float32)
        made[scale.name] = numpy_helper.from_array(small, scale.name)
        count = int(np.prod(zero.dims))
        made[zero.name] = helper.make_tensor(zero.name, TensorProto.FLOAT8E4M3FN, zero.dims, [0.0] * count)
        weights = stored.get(node.input[0])
        if weights is not None:
            values = numpy_helper.to_array(exact[_source(weights.name, exact)])
            steps = values / small.reshape(-1, *[1] * (values.ndim - 1))
            made[weights.name] = helper.make_tensor(
                weights.name, TensorProto.FLOAT8E4M3FN, weights.dims, steps.clip(-LARGEST, LARGEST).ravel().tolist()
            )
    kept = [made.get(tensor.name, tensor) for tensor in model.graph.initializer]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _source(quantized: str, exact: dict[str, onnx.TensorProto]) -> str:
    """The weights that were quantized: a recurrence's copy is called WEIGHTS.OUTPUT_quantized."""
    name = quantized.removesuffix("_quantized")
    return name if name in exact else name.rpartition(".")[0]
