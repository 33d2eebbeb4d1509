"""The model of lower precision, as a function of which of its layers are kept above it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from derain.calibration.equalize import Equalizing
from derain.calibration.frames import Kind
from derain.calibration.half import to_half
from derain.calibration.layers import Layers
from derain.calibration.qdq import quantize
from derain.calibration.ranges import Ranges

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Lower:
    """What is needed to build it.

    Attributes:
        model: float32, its channels made alike already.
        layers: of it.
        kind: precision to reach.
        equalizing: what made the channels alike.
        ranges: of the model's activations; None where the precision needs none.
        fixed: layers that are kept in any case.
    """

    model: onnx.ModelProto
    layers: Layers
    kind: Kind
    equalizing: Equalizing = field(default_factory=Equalizing)
    ranges: Ranges | None = None
    fixed: frozenset[str] = frozenset()

    @property
    def free(self) -> list[str]:
        """What may be kept: convolutions and, of INT8, residual additions."""
        names = self.layers.all if self.kind == "int8" else self.layers.convolutions
        return [name for name in names if name not in self.fixed]

    def build(self, kept: frozenset[str], *, alone: bool = False) -> onnx.ModelProto:
        """The graph with these layers kept; for ``alone`` see :func:`derain.calibration.qdq.quantize`."""
        if self.ranges is None:
            return to_half(self.model, frozenset([*self.layers.convolutions, *self.layers.products]) - kept)
        eight = self.kind == "float8"
        return quantize(self.model, self.layers, self.ranges, kept | self.fixed, float8=eight, alone=alone)

    @property
    def original_ranges(self) -> Ranges | None:
        """Ranges of the tensors as they are in the float32 file, before channels were made alike."""
        return None if self.ranges is None else self.equalizing.undo(self.ranges)
