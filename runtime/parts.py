"""Parts of a model in files of their own: the attention extractor, the tile graph and its whole-frame context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.card import ModelCard, Port, read_card
from derain.companions import Companion, beside
from derain.errors import ModelFileError, UsageError
from derain.runtime.backends import choose
from derain.runtime.backends.base import Buffers, dtype_of, shape_of
from derain.runtime.ports import Picture, as_input

# A frame is cut into at most four sizes of tiles: inside, right, bottom, corner.
_SIZES_KEPT = 4
_HOW = {
    "attention": "derain export CHECKPOINT -o {name} --part attention",
    "tile": "derain export CHECKPOINT -o {name} --tiled",
    "context": "derain export CHECKPOINT -o {name} --tiled",
}


def how_to_make(part: Companion, name: str) -> str:
    """The command that writes such a file."""
    return f"Make it with: {_HOW[part].format(name=name)}"


class PartModel:
    """An open part. One thread at a time may call it.

    Args:
        path: an ``.onnx`` file whose card names the part.
        part: which part it must be.
        backend: a backend's name or ``auto``.
        threads: CPU threads, None for the machine's cores.

    Raises:
        ModelFileError: missing, damaged, or another part.
        BackendError: no backend can run it.
    """

    def __init__(self, path: Path, part: Companion, backend: str = "auto", threads: int | None = None) -> None:
        self.card: ModelCard = read_card(path)
        if self.card.part != part:
            raise ModelFileError(
                f"'{path}' holds the '{self.card.part}' part of '{self.card.name}'",
                expected=f"the '{part}' part",
                fix=how_to_make(part, path.name),
            )
        pictures = [port for port in self.card.inputs if port.channels in ("BGR", "RGB")]
        if len(pictures) != 1 or len(self.card.inputs) != 1 + (part == "tile"):
            raise ModelFileError(
                f"'{path}' takes {[port.name for port in self.card.inputs]}", expected="frames in BGR or RGB"
            )
        self._frame: Port = pictures[0]
        self._ports = {port.channels: port for port in (*self.card.inputs, *self.card.outputs)}
        self._arrays: dict[tuple[int, int], Buffers] = {}
        chosen, self.backend_reason = choose(backend, self.card)
        self._backend = chosen(path, self.card, threads)
        self._backend.open()
        self.backend_name = self._backend.name
        self.device = f"{self._backend.device}, {self._backend.threads} threads"

    def __call__(self, frame: Picture, context: NDArray[Any] | None = None) -> Buffers:
        """Run the part on a frame uint8 (H, W, 3) BGR, and on the whole frame's context in the case of a tile.

        Returns:
            The outputs by their ports' names, with a batch axis of 1; overwritten by the next call of that size.

        Raises:
            BackendError: the inference failed.
        """
        height, width = frame.shape[:2]
        arrays = self._arrays.get((height, width))
        if arrays is None:
            if len(self._arrays) >= _SIZES_KEPT:
                self._arrays.clear()
            arrays = self._arrays[height, width] = self._allocate(height, width)
        inputs = {self._frame.name: as_input(frame, self._frame, arrays[self._frame.name])}
        if context is not None:
            inputs[self._ports["context"].name] = context
        outputs = {port.name: arrays[port.name] for port in self.card.outputs}
        self._backend.infer(inputs, outputs)
        return outputs

    def port(self, channels: str) -> Port:
        """The port that carries these channels.

        Raises:
            ModelFileError: it has none.
        """
        for port in self.card.outputs:
            if port.channels == channels or (channels == "picture" and port.channels in ("BGR", "RGB")):
                return port
        raise ModelFileError(f"The '{self.card.part}' part of '{self.card.name}' gives no {channels}")

    def close(self) -> None:
        """Give the backend's memory back."""
        self._backend.close()
        self._arrays.clear()

    def _allocate(self, height: int, width: int) -> Buffers:
        arrays: Buffers = {}
        for port in (self._frame, *self.card.outputs):
            shape = (1, self._context_size()) if port.layout == "NC" else shape_of(port, 1, height, width)
            arrays[port.name] = np.empty(shape, dtype_of(port))
        return arrays

    def _context_size(self) -> int:
        if self.card.context_size is None:
            raise ModelFileError(f"The card of '{self.card.name}' does not tell the length of its context")
        return self.card.context_size


def require_tiles(path: Path, card: ModelCard) -> Path | None:
    """The tile graph to use for a model; None when its own graph serves.

    Raises:
        UsageError: the model cannot be tiled, or its tile graph is not there; the message tells why.
    """
    geometry = card.geometry
    if geometry.tiling == "unsound" or geometry.receptive_field is None:
        raise UsageError(
            f"'{card.name}' cannot be tiled: {geometry.tiling_reason}", fix="Run it on whole frames, or resize them"
        )
    if card.part == "tile":
        return path
    if geometry.tiling == "sound":
        return None
    tile = beside(path, "tile")
    if not tile.exists():
        raise UsageError(
            f"'{card.name}' needs its tiled form to be tiled ({geometry.tiling_reason}), and '{tile}' does not exist",
            fix=how_to_make("tile", tile.name),
        )
    return tile
