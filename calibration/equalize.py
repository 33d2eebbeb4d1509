"""Cross-layer equalization: channels of unequal size share one INT8 scale better after they were made alike.

TensorRT gives an activation one scale for all its channels, so a channel a tenth as large as the largest is left with
25 levels. Where convolutions write a tensor and convolutions read it, and nothing but sums, activations that are linear
on either side of zero, pools and resizes lies between, channel c may be divided by any s_c > 0 by whoever writes it and
multiplied back by whoever reads it: the float network stays the same, and the weights, which have a scale per channel,
take up the difference (Nagel et al. 2019, arXiv 1906.04721; there for two layers in a row, here for a whole residual
stream).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from derain.calibration.layers import Layers
from derain.calibration.ranges import Ranges
from derain.card import Equalized, TrainedRanges
from derain.errors import CalibrationError

if TYPE_CHECKING:
    import onnx

Sizes = NDArray[np.float64]

# f(s x) = s f(x) for s > 0, channel by channel.
_SUMS = frozenset({"Add", "Sub"})
_ALIKE = _SUMS | {"Relu", "LeakyRelu", "AveragePool", "MaxPool", "Identity", "Resize"}
# A channel that is hardly ever used must not make the weights that read it vanish beside the others.
_WIDEST = 64.0


@dataclass(frozen=True)
class Group:
    """Tensors whose channels can only be scaled together.

    Attributes:
        tensors: names, in graph order.
        writers, readers: names of the convolutions whose results, and whose inputs, they are.
        channels: how many.
    """

    tensors: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int


def find_groups(model: onnx.ModelProto) -> list[Group]:
    """Groups of a float32 graph's tensors that can be equalized, in graph order."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    joined = _Joined()
    writes: dict[str, onnx.NodeProto] = {}
    reads: dict[str, list[onnx.NodeProto]] = {}
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in weights and _groups_of(node) == 1:
            writes[node.output[0]] = node
            reads.setdefault(node.input[0], []).append(node)
            joined.join(node.input[0])
            joined.join(node.output[0])
        elif node.op_type in _ALIKE:
            sources = list(node.input) if node.op_type in _SUMS else [node.input[0]]
            fixed.update(node.output[0] for name in sources if name in weights)
            joined.join(node.output[0], *sources)
        else:
            fixed.update(node.input, node.output)
    barred = {joined.root(name) for name in fixed}
    found = []
    for root, names in joined.sets().items():
        writers = [writes[name] for name in names if name in writes]
        readers = [node for name in names for node in reads.get(name, [])]
        widths = {weights[node.input[1]].dims[0] for node in writers} | {weights[n.input[1]].dims[1] for n in readers}
        # Unequal widths: one is broadcast over the channels of another.
        if root not in barred and writers and readers and len(widths) == 1:
            found.append(
                Group(tuple(names), tuple(n.name for n in writers), tuple(n.name for n in readers), int(widths.pop()))
            )
    return found


def factors(group: Group, magnitudes: dict[str, Sizes]) -> Sizes:
    """What to divide each channel by, float64 (C): the channel's size, the mean over tensors that are quantized.

    Args:
        group: of :func:`find_groups`.
        magnitudes: tensor to the size of each of its channels, float64 (C), of the tensors that are quantized.
    """
    sizes = [magnitudes[name] for name in group.tensors if name in magnitudes]
    if not sizes:
        return np.ones(group.channels)
    logs = [np.log(np.maximum(size, max(float(size.max()), 1e-30) / _WIDEST)) for size in sizes]
    mean = np.mean([log - log.mean() for log in logs], axis=0)
    # Few digits: they are stored in the card, and training divides by just these.
    return np.array([float(f"{value:.5g}") for value in np.exp(mean)], np.float64)


def equalize(model: onnx.ModelProto, changes: Sequence[tuple[Group, Sizes]]) -> onnx.ModelProto:
    """A copy whose groups hold values divided, channel by channel, and which computes the same picture.

    Convolutions that share weights have copies of their own afterwards where they change.

    Args:
        model: float32; it is not changed.
        changes: groups of it, each with factors, float64 (C), positive.
    """
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    uses = Counter(name for node in copy.graph.node for name in node.input if name in weights)
    divided = {name: by for group, by in changes for name in group.writers}
    multiplied = {name: by for group, by in changes for name in group.readers}

    def replace(node: onnx.NodeProto, position: int, values: Sizes) -> None:
        name = node.input[position]
        made = numpy_helper.from_array(values.astype(np.float32), name)
        if uses[name] == 1:
            weights[name].CopyFrom(made)
        else:
            made.name = f"{name}.{node.output[0]}"
            copy.graph.initializer.append(made)
            node.input[position] = made.name

    for node in copy.graph.node:
        if node.name not in divided and node.name not in multiplied:
            continue
        kernel = numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
        ones = np.ones(1)
        by = divided.get(node.name, ones)
        replace(node, 1, kernel * multiplied.get(node.name, ones)[None, :, None, None] / by[:, None, None, None])
        if node.name in divided and len(node.input) > 2 and node.input[2]:
            replace(node, 2, numpy_helper.to_array(weights[node.input[2]]).astype(np.float64) / by)
    used = {name for node in copy.graph.node for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in used]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


@dataclass(frozen=True)
class Equalizing:
    """What is done to a graph: groups, each with its factors."""

    changes: tuple[tuple[Group, Sizes], ...] = ()

    def apply(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """See :func:`equalize`."""
        return equalize(model, self.changes) if self.changes else model

    def undo(self, ranges: Ranges) -> Ranges:
        """Ranges of an equalized graph's tensors as ranges of the original's: what its largest channel would have."""
        largest = dict(ranges.largest)
        for group, by in self.changes:
            largest.update({name: largest[name] * float(by.max()) for name in group.tensors if name in largest})
        return Ranges(ranges.method, largest)

    def record(self, model: onnx.ModelProto, layers: Layers) -> list[Equalized]:
        """For the card: which layers read channels that were divided, and by what."""
        found = []
        for group, by in self.changes:
            inside = set(group.tensors)
            names = [node.name for node in model.graph.node if node.name in layers.all and node.input[0] in inside]
            if names:
                found.append(Equalized(inputs=names, factors=by.tolist()))
        return found


def find_equalizing(
    model: onnx.ModelProto, tensors: list[str], measure: Callable[[onnx.ModelProto, list[str]], dict[str, Sizes]]
) -> Equalizing:
    """What makes the channels of a graph's tensors alike.

    Args:
        model: float32.
        tensors: that will be quantized.
        measure: gives the sizes of the channels of some of them, each float64 (C).
    """
    groups = [group for group in find_groups(model) if set(group.tensors) & set(tensors)]
    inside = {name for group in groups for name in group.tensors}
    sizes = measure(model, [name for name in tensors if name in inside]) if groups else {}
    return Equalizing(tuple((group, factors(group, sizes)) for group in groups))


def trained_equalizing(model: onnx.ModelProto, record: TrainedRanges) -> Equalizing:
    """What was done to the graph that quantization-aware training took its ranges from.

    Raises:
        CalibrationError: the graph has no such group of tensors.
    """
    nodes = {node.name: node for node in model.graph.node}
    groups = find_groups(model)
    changes = []
    for entry in record.equalized:
        known = [nodes[name].input[0] for name in entry.inputs if name in nodes]
        group = next((group for group in groups if known and known[0] in group.tensors), None)
        if group is None or group.channels != len(entry.factors):
            raise CalibrationError(
                f"The model was trained with channels made alike at {entry.inputs[:1]}, which its graph does not have",
                fix="Export the checkpoint again with the derain that calibrates it",
            )
        changes.append((group, np.array(entry.factors, np.float64)))
    return Equalizing(tuple(changes))


def _groups_of(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


class _Joined:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        while self._above.get(name, name) != name:
            name = self._above[name]
        return name

    def join(self, name: str, *others: str) -> None:
        self._above.setdefault(name, name)
        for other in others:
            self._above.setdefault(other, other)
            self._above[self.root(other)] = self.root(name)

    def sets(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._above:
            found.setdefault(self.root(name), []).append(name)
        return found
