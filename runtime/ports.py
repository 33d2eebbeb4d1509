"""Between a frame as users have it (uint8 BGR, rows first) and a graph's ports as its card declares them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.card import ModelCard, Port
from derain.errors import ModelFileError
from derain.runtime.backends.base import Buffers, dtype_of, shape_of

Picture = NDArray[np.uint8]
RainMap = NDArray[np.float32]

_COLOURS, _ATTENTION = ("BGR", "RGB"), ("attention",)


def _the_one(ports: list[Port], channels: tuple[str, ...], path: object) -> Port:
    found = [port for port in ports if port.channels in channels]
    if len(found) != 1:
        raise ModelFileError(
            f"The card of '{path}' declares {len(found)} {'/'.join(channels)} ports among {[p.name for p in ports]}",
            expected="one picture in, one picture and one attention map out",
            fix="Export the model again with: derain export",
        )
    return found[0]


def require_whole(card: ModelCard, path: object) -> None:
    """Make sure that a card's ports are those of a deraining model.

    Raises:
        ModelFileError: another number of pictures in, pictures out or attention maps out.
    """
    if len(card.inputs) != 1 or card.part != "whole":
        raise ModelFileError(
            f"'{path}' holds the '{card.part}' part of '{card.name}' with {len(card.inputs)} inputs",
            expected="a whole deraining graph with one input",
            fix="Export the model without --part",
        )
    _the_one(card.inputs, _COLOURS, path)
    _the_one(card.outputs, _COLOURS, path)
    _the_one(card.outputs, _ATTENTION, path)


class PortBuffers:
    """The arrays between one frame size and the graph: made once per size, used for every frame of that size.

    Args:
        card: of a whole deraining model.
        path: its file, for messages.
        height, width: of the frames, pixels.
    """

    def __init__(self, card: ModelCard, path: object, height: int, width: int) -> None:
        self.size = (height, width)
        self._input = _the_one(card.inputs, _COLOURS, path)
        self._output = _the_one(card.outputs, _COLOURS, path)
        self._rain = _the_one(card.outputs, _ATTENTION, path)
        self._arrays: Buffers = {
            port.name: np.empty(shape_of(port, 1, height, width), dtype_of(port))
            for port in (*card.inputs, *card.outputs)
        }

    def bind(self, frame: Picture, clean: Picture, rain: RainMap | None) -> tuple[Buffers, Buffers]:
        """Named buffers for one inference. Arrays that already have a port's form are used as they are.

        Args:
            frame: uint8 (H, W, 3) BGR; only read.
            clean: uint8 (H, W, 3), C-contiguous, where the result will be.
            rain: float32 (H, W), C-contiguous, or None to leave the map in a buffer of our own.
        """
        inputs = {self._input.name: as_input(frame, self._input, self._arrays[self._input.name])}
        outputs = {name: array for name, array in self._arrays.items() if name not in inputs}
        if is_native(self._output):
            outputs[self._output.name] = clean[None]
        if rain is not None and self._rain.dtype == "float32":
            outputs[self._rain.name] = rain[None]
        return inputs, outputs

    def finish(self, outputs: Buffers, clean: Picture, rain: RainMap | None) -> None:
        """Convert what the graph wrote elsewhere than into ``clean`` and ``rain``."""
        if not is_native(self._output):
            to_bgr(outputs[self._output.name], self._output, clean)
        if rain is not None and self._rain.dtype != "float32":
            rain[:] = outputs[self._rain.name][0]


def as_input(frame: Picture, port: Port, array: NDArray[Any]) -> NDArray[Any]:
    """A frame uint8 (H, W, 3) BGR in a port's form: the frame itself where that fits, else ``array``, filled."""
    if is_native(port) and frame.flags.c_contiguous:
        return frame[None]
    planes = _rows_first(array, port)
    ordered = frame if port.channels == "BGR" else frame[..., ::-1]
    if port.dtype == "uint8":
        planes[:] = ordered
    else:
        np.multiply(ordered, np.float32(1 / 255), out=planes, casting="same_kind")
    return array


def is_native(port: Port) -> bool:
    """Whether the port takes or gives frames as users have them."""
    return port.layout == "NHWC" and port.dtype == "uint8" and port.channels == "BGR"


def _rows_first(array: NDArray[Any], port: Port) -> NDArray[Any]:
    """A (H, W, 3) view of a port's array."""
    first: NDArray[Any] = array[0]
    return first.transpose(1, 2, 0) if port.layout == "NCHW" else first


def to_bgr(array: NDArray[Any], port: Port, clean: Picture) -> None:
    """A port's picture as uint8 (H, W, 3) BGR in ``clean``; the array's content is used up."""
    planes = _rows_first(array, port)
    ordered = planes if port.channels == "BGR" else planes[..., ::-1]
    if port.dtype == "uint8":
        clean[:] = ordered
    else:
        # The array is ours and its content is used up, so it serves as the scratch space of the conversion.
        np.multiply(ordered, np.asarray(255, ordered.dtype), out=ordered)
        np.clip(np.rint(ordered, out=ordered), 0, 255, out=ordered)
        clean[:] = ordered
