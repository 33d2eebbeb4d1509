"""Each tensor's range by the method that suits it: the one with which the whole INT8 network loses least.

A method that is right for most tensors can be wrong for one: behind the last stage bright streaks are rare and large,
and a percentile that cuts them off costs more than all other rounding together. Tensors are not judged alone: what each
of them cuts off a streak adds up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from derain.calibration.gate import Derain
from derain.calibration.layers import Layers
from derain.calibration.qdq import quantize
from derain.calibration.ranges import Method, Ranges
from derain.calibration.session import Runner
from derain.card import ModelCard

if TYPE_CHECKING:
    import onnx

Feed = dict[str, NDArray[Any]]
# Narrower than any method: worth trying where large values matter little to the picture.
_NARROWER = 0.7
_ALIKE = 0.1  # candidates nearer to each other than this, relative, are one


def mixed_ranges(
    model: onnx.ModelProto,
    layers: Layers,
    tried: dict[Method, Ranges],
    begin: Method,
    drop: Callable[[Derain], float],
    card: ModelCard,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Ranges:
    """Choose each tensor's range among those of all methods, and one narrower still, one tensor after the other.

    Args:
        model: float32.
        layers: of it.
        tried: the methods' ranges of all its tensors.
        begin: the method whose ranges the others have until it is their turn.
        drop: what a model of lower precision loses on a few frames, dB.
        card: of the model.
        say: told each tensor.
    """
    start = tried[begin].largest
    lowered = quantize(model, layers, tried[begin], half=False)
    scales = _free_scales(lowered)
    run = Runner(lowered, card)
    run.session = scaled = _Scaled(run.session)
    chosen = {name: start[name] for name in start if name in scales}

    def cost(largest: dict[str, float]) -> float:
        scaled.given = {scale: np.array(largest[name] / 127, np.float32) for name in largest for scale in scales[name]}
        return drop(run)

    now = cost(chosen)
    for number, name in enumerate(chosen, 1):
        say(f"range of tensor {number} of {len(chosen)}")
        for largest in _candidates([ranges.largest[name] for ranges in tried.values()], start[name]):
            other = cost(chosen | {name: largest})
            if other < now:
                now, chosen[name] = other, largest
    return Ranges("mixed", start | chosen)


class _Scaled:
    """A session that is given the scales besides."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.given: Feed = {}

    def run(self, names: list[str], feed: Feed) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = self._session.run(names, feed | self.given)
        return found


def _candidates(sizes: list[float], present: float) -> list[float]:
    """Ranges worth a try besides the present one."""
    found = [present]
    for size in (*sizes, _NARROWER * min(sizes)):
        if all(abs(size / other - 1) > _ALIKE for other in found):
            found.append(size)
    return found[1:]


def _free_scales(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Make the scales of a quantized graph's activations inputs, in place; tensor to its scales."""
    from onnx import TensorProto, helper

    weights = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in weights:
            found.setdefault(node.input[0], []).append(node.input[1])
    free = {name for names in found.values() for name in names}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in free]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in sorted(free))
    return found
