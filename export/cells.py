"""The camera's contract around a network that works on cells of 4x4 pixels, without leaving its grid for the last sum.

On a CPU the pictures around the convolutions cost as much as the convolutions: full-size maps, planes put in order,
pixels shuffled. Here a frame is cut into cells once, in rows of 4 pixels, and put together once. In between, channel
order and the scale of levels are part of the weights, and gain and offset come from a convolution of 2x2 on cells.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.export.contract import Contract, Part
from derain.export.graph import CameraGraph, ContextScope
from derain.train.deployable import CellDeployable, Deployable
from derain.train.networks.context import GlobalSimilarity

CELL = 4
_PLACES = CELL * CELL
_LEVELS = 255.0


def camera_graph(network: Deployable, contract: Contract, part: Part) -> CameraGraph:
    """The graph to trace: cell by cell where the network and the frames allow it."""
    if isinstance(network, CellDeployable) and contract.frames in ("bgr", "rgb") and part in ("whole", "tile"):
        return CellCameraGraph(network, contract, part)
    return CameraGraph(network, contract, part)


class CellCameraGraph(CameraGraph):
    """uint8 frames to uint8 frames, summed up on the network's cells; equal to :class:`CameraGraph` but for rounding.

    Args:
        network: it is copied, and the copy's first and last layers take and give the frame's channel order. The
            stems still take a picture in [0, 1], so that INT8 ranges mean the same here and in training.
        contract: of uint8 frames.
        part: ``whole`` or ``tile``.
    """

    network: CellDeployable

    def __init__(self, network: CellDeployable, contract: Contract, part: Part) -> None:
        order = (0, 1, 2) if contract.frames == "rgb" else (2, 1, 0)
        network = copy.deepcopy(network)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, GlobalSimilarity):
                    setattr(module, name, SimilarityByPixel(child))
        with torch.no_grad():
            for layer in network.picture_readers():
                _reorder(layer, order)
            _reorder(network.pooled_reader(), order, scale=1.0 / _LEVELS)
            _write_levels(network.streak_writer(), order)
        super().__init__(network, contract, part)
        self.context = ContextScope(network.pooled_context)
        self.fog = FogToCells(order)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        frame = inputs[0].to(torch.float32)
        batch, height, width = frame.shape[:3]
        padded = self._pad_rows(frame)
        rows, columns = padded.shape[1] // CELL, padded.shape[2] // CELL
        cells = padded.reshape(batch, rows, CELL, columns, CELL * 3).permute(0, 1, 3, 2, 4)
        cells = cells.reshape(batch, rows, columns, _PLACES * 3).permute(0, 3, 1, 2)
        assert self.context is not None
        context = inputs[1] if self.part == "tile" else self.context(pool(cells))
        picture = padded.permute(0, 3, 1, 2) * (1.0 / _LEVELS)
        maps, streaks, attention = self.network.estimate(picture, context)
        gain, offset = self.fog(maps)
        # Pixel by pixel before they are rounded: OpenVINO keeps channels last in memory and permutes nothing here, and
        # ONNX Runtime moves the permutation up through the sum, where it meets that of the cells and both vanish.
        levels = (cells * gain + (offset + streaks)).permute(0, 2, 3, 1).clamp(0.0, _LEVELS).round()
        derained = levels.reshape(batch, rows, columns, CELL, CELL * 3).permute(0, 1, 3, 2, 4)
        derained = derained.reshape(batch, rows * CELL, columns * CELL, 3)[:, :height, :width]
        return derained.to(torch.uint8), F.pixel_shuffle(attention, CELL)[:, 0, :height, :width]

    def _pad_rows(self, frame: Tensor) -> Tensor:
        """:meth:`_pad` for frames (B, H, W, 3)."""
        below, right = self._missing(frame.shape[1], frame.shape[2])
        return F.pad(frame.unsqueeze(1), (0, 0, 0, right, 0, below), mode="replicate").squeeze(1)


class FogToCells(nn.Module):
    """Bilinear interpolation from cells of 16 pixels, (B, 6, H/16, W/16), to every pixel of the cells of 4.

    The knots of the interpolation lie on corners of the small cells, so that it is bilinear inside each: the corners'
    values say everything, and a convolution of 2x2 with fixed weights spreads them over a cell's pixels.
    """

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.gain = _spread(order, 1.0, bias=1.0)
        self.offset = _spread(order, _LEVELS, bias=0.0)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """``gain - 1`` and ``offset`` of R, G, B, to gain and offset in levels, (B, 48, H/4, W/4) each."""
        # A corner lies every quarter of a large cell, the outermost half a cell outside its centre.
        size = [CELL * side + 1 + CELL for side in maps.shape[2:]]
        around = F.pad(maps, (1, 1, 1, 1), mode="replicate")
        corners = F.interpolate(around, size=size, mode="bilinear", align_corners=True)[:, :, 2:-2, 2:-2]
        return self.gain(corners[:, :3]), self.offset(corners[:, 3:])


def pool(cells: Tensor) -> Tensor:
    """Mean, maximum and minimum of each colour over cells: (B, 48, H/4, W/4), pixel after pixel, to (B, 9, H/4, W/4).

    Reductions over planes, as these run on all threads of every engine. Pooling does not: OpenVINO 2026.4 pads three
    channels to sixteen for it, four times as slow.
    """
    batch, _, rows, columns = cells.shape
    pixels = cells.reshape(batch, _PLACES, 3, rows, columns)
    return torch.cat([pixels.mean(1), pixels.amax(1), pixels.amin(1)], dim=1)


class SimilarityByPixel(nn.Module):
    """:class:`GlobalSimilarity` with a matrix product that takes and gives pixel by pixel.

    OpenVINO keeps the channels of a pixel together, and would reorder the features before and after a product that
    takes them channel by channel.
    """

    def __init__(self, plain: GlobalSimilarity) -> None:
        super().__init__()
        self.query, self.output = plain.query, plain.output

    def forward(self, h: Tensor, similarity: Tensor) -> Tensor:
        """Features (B, C, H, W) and the frame's matrix (B, C, 16) to (B, C, H, W)."""
        query = self.query(h).permute(0, 2, 3, 1)
        batch, height, width, length = query.shape
        mixed = torch.matmul(query.reshape(batch, height * width, length), similarity.to(query.dtype).transpose(1, 2))
        out: Tensor = self.output(mixed.reshape(batch, height, width, -1).permute(0, 3, 1, 2))
        return out


def _spread(order: Sequence[int], scale: float, bias: float) -> nn.Conv2d:
    """Corners (R, G, B) to the 16 pixels of a cell, each in the frame's channel order."""
    near = 1.0 - (torch.arange(CELL) + 0.5) / CELL
    shares = torch.stack([near, 1.0 - near], dim=1)
    layer = nn.Conv2d(3, _PLACES * 3, 2).requires_grad_(False)
    weight = torch.zeros(_PLACES, 3, 3, 2, 2)
    for place, channel in enumerate(order):
        weight[:, place, channel] = torch.einsum("yi,xj->yxij", shares, shares).reshape(_PLACES, 2, 2) * scale
    layer.weight.copy_(weight.reshape_as(layer.weight))
    assert layer.bias is not None
    layer.bias.fill_(bias)
    return layer


def _reorder(layer: nn.Conv2d, order: Sequence[int], scale: float = 1.0) -> None:
    """From input channels R, G, B, once or several times, to the frame's order."""
    sides = layer.weight.shape[2:]
    weight = layer.weight.reshape(layer.out_channels, -1, 3, *sides)[:, :, list(order)].reshape_as(layer.weight)
    layer.weight = nn.Parameter(weight * scale, requires_grad=False)


def _write_levels(layer: nn.Conv2d, order: Sequence[int]) -> None:
    """Levels, and negative: engines fuse an addition into a convolution, and no subtraction."""

    def ordered(values: Tensor) -> nn.Parameter:
        """From colour, row, column of a channel's place to row, column, colour."""
        places = values.reshape(3, CELL, CELL, *values.shape[1:])[list(order)].movedim(0, 2)
        return nn.Parameter(places.reshape_as(values) * -_LEVELS, requires_grad=False)

    layer.weight = ordered(layer.weight)
    if layer.bias is not None:
        layer.bias = ordered(layer.bias)
