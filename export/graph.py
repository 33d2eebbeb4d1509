"""The module that is traced: a deployable network with the camera's contract around it.

Nothing is left for the host but to hand over the frame: casting, channel order, padding to the network's grid and
cropping back, rounding to 8 bits all happen in here. TensorRT takes uint8 only as an input or output and refuses to
transpose it, so the graph casts first and transposes then; at the end it transposes first and casts then.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.errors import UsageError
from derain.export.contract import Contract, Part
from derain.export.nv12 import nv12_to_rgb
from derain.train.deployable import ContextDeployable, Deployable


class ContextScope(nn.Module):
    """Calls a network's ``frame_context`` under a scope of its own, by which its nodes are known in the graph.

    It holds the bound method only: holding the module would give every weight a second name.
    """

    def __init__(self, frame_context: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._frame_context = frame_context

    def forward(self, rainy: Tensor) -> Tensor:
        return self._frame_context(rainy)


class CameraGraph(nn.Module):
    """Frames as the contract has them, to outputs as the contract has them.

    Args:
        network: any system's deployable.
        contract: layout and type of frames.
        part: ``whole``: derained frame and attention; ``attention``: the extractor alone; ``context``: the whole
            frame's context vector; ``tile``: derained frame and attention of a tile, given that vector.

    Raises:
        UsageError: the network has no such part.
    """

    def __init__(self, network: Deployable, contract: Contract, part: Part = "whole") -> None:
        super().__init__()
        if part in ("context", "tile") and not isinstance(network, ContextDeployable):
            raise UsageError(
                f"The system '{network.spec.system}' ({network.spec.variant}) has no whole-frame context",
                expected="a network whose tiling needs a context",
                fix="Tile it without --tiled"
                if network.spec.tiling == "sound"
                else f"It cannot be tiled: {network.spec.tiling_reason}",
            )
        self.network = network
        self.contract = contract
        self.part = part
        self.context = ContextScope(network.frame_context) if isinstance(network, ContextDeployable) else None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs and outputs in the order of ``contract.inputs(part)`` and ``contract.outputs(part)``."""
        planes = 2 if self.contract.frames == "nv12" else 1
        rainy = self._to_rgb(inputs[:planes])
        height, width = rainy.shape[2], rainy.shape[3]
        rainy = self._pad(rainy)
        if self.part == "context":
            assert self.context is not None
            return (self.context(rainy),)
        if self.part == "attention":
            return (self.network.attention_only(rainy)[:, 0, :height, :width],)
        derained, attention = self._derain(rainy, inputs[planes:])
        return self._from_rgb(derained[:, :, :height, :width]), attention[:, 0, :height, :width]

    def _derain(self, rainy: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        if self.context is None:
            derained, attention = self.network(rainy)
            return derained, attention
        assert isinstance(self.network, ContextDeployable)
        context = given[0] if given else self.context(rainy)
        return self.network.with_context(rainy, context)

    def _to_rgb(self, planes: tuple[Tensor, ...]) -> Tensor:
        """To float32 (B, 3, H, W) RGB in [0, 1]."""
        if self.contract.frames == "nv12":
            return nv12_to_rgb(planes[0], planes[1], self.contract.matrix, self.contract.colour_range)
        if self.contract.frames == "float":
            return planes[0]
        frame = planes[0].to(torch.float32).permute(0, 3, 1, 2)
        return (frame if self.contract.frames == "rgb" else frame.flip(1)) * (1.0 / 255.0)

    def _from_rgb(self, derained: Tensor) -> Tensor:
        """From (B, 3, H, W) RGB, which the network has clamped to [0, 1]; 8-bit levels round half to even."""
        if self.contract.frames == "float":
            return derained
        levels = (derained * 255.0).round()
        order = (0, 1, 2) if self.contract.frames == "rgb" else (2, 1, 0)
        # Stacking planes sets the channel order and transposes in one pass: on a CPU faster than a flip and a permute.
        return torch.stack([levels[:, channel] for channel in order], dim=3).to(torch.uint8)

    def _pad(self, rainy: Tensor) -> Tensor:
        """Repeat the last row and column until the size fits the network's grid; nothing where it fits already."""
        below, right = self._missing(rainy.shape[2], rainy.shape[3])
        return F.pad(rainy, (0, right, 0, below), mode="replicate")

    def _missing(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns up to the network's grid and minimum."""
        step = self.network.spec.multiple_of
        least = -(-self.network.spec.minimum // step)
        below = step * _at_least((height + step - 1) // step, least) - height
        right = step * _at_least((width + step - 1) // step, least) - width
        return below, right


def _at_least(cells: int, least: int) -> int:
    """The larger of the two; ``cells`` is at least 1."""
    if least <= 1:
        return cells
    # A traced size is a symbol, on which the built-in max would fix one branch.
    larger: int = torch.sym_max(cells, least)  # type: ignore[no-untyped-call]
    return larger
