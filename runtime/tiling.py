"""Frames of any size in bounded memory: overlapping tiles whose seams cannot be seen.

A pixel depends on a square of the card's receptive field around it. Tiles therefore overlap by that much on either
side of every seam, plus a strip over which one fades into the next, and begin on the network's grid; what the network
sees of the whole frame at once comes from the companion graph and is the same for all tiles. So the result equals that
of the whole frame but for the rounding of sums that engines order differently.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from derain.card import Geometry
from derain.errors import UsageError
from derain.models import resolve
from derain.runtime.engine.record import read_model_card
from derain.runtime.model import Model, load, require_frame
from derain.runtime.overview import overview
from derain.runtime.parts import PartModel, require_tiles
from derain.runtime.ports import Picture, RainMap, is_native, to_bgr

DEFAULT_TILE = 1024
_FADE = 16


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the frame: computed from ``start`` to ``end``, used from ``first`` to
    ``last``; over the first ``fade`` used pixels it fades in over the tile before it.
    """

    start: int
    end: int
    first: int
    last: int
    fade: int


def plan(length: int, tile: int, geometry: Geometry) -> list[Span]:
    """Cut one side of a frame into tiles.

    Args:
        length: of the frame's side.
        tile: largest length of a tile.
        geometry: of the model; its receptive field must be known.

    Raises:
        UsageError: the tile is not larger than the overlap.
    """
    if length <= tile:
        return [Span(0, length, 0, length, 0)]
    grid = geometry.multiple_of
    assert geometry.receptive_field is not None
    margin = math.ceil(geometry.receptive_field / 2 / grid) * grid
    fade = math.ceil(_FADE / grid) * grid
    step = tile // grid * grid - 2 * margin - fade
    if step < grid:
        least = 2 * margin + fade + grid
        raise UsageError(
            f"A tile of {tile} pixels is smaller than its overlap: a pixel sees {geometry.receptive_field} pixels",
            expected=f"at least {least}",
        )
    # The last tile ends with the frame and begins on the grid, so it may be shorter than the others.
    last = math.ceil((length - tile // grid * grid) / grid) * grid
    starts = [*range(0, last, step), last]
    spans = []
    for number, start in enumerate(starts):
        end = min(start + tile // grid * grid, length)
        inside = number + 1 < len(starts)
        spans.append(
            Span(start, end, start + margin if number else 0, end - margin if inside else length, fade if number else 0)
        )
    return spans


def load_tiled(
    name_or_path: str | Path, backend: str = "auto", threads: int | None = None, tile: int = DEFAULT_TILE
) -> TiledModel:
    """Open a model for frames of any size.

    Args:
        name_or_path: a model whose card allows tiles, or a tile graph. A model with whole-frame context needs its tiled
            form beside it: for ``edge.onnx`` the files ``edge.tile.onnx`` and ``edge.tile.context.onnx``.
        tile: largest side of a tile, pixels; larger tiles waste less on the overlap and need more memory.

    Raises:
        UsageError: the model cannot be tiled (the message holds the card's reason), its tiled form is missing, or the
            tile is too small.
        ModelFileError, BackendError: as for :func:`derain.load`.
    """
    path = resolve(name_or_path)
    card = read_model_card(path)
    tiles = require_tiles(path, card)
    plan(tile + 1, tile, card.geometry)  # a tile that is too small is told now
    return TiledModel(
        _WholeTiles(path, backend, threads) if tiles is None else _ContextTiles(tiles, backend, threads), tile
    )


class _WholeTiles:
    """A network that sees a bounded square only: its whole graph is its tile graph."""

    def __init__(self, path: Path, backend: str, threads: int | None) -> None:
        self._model: Model = load(path, backend, threads)
        self.card = self._model.card
        self.about = self._model.device, self._model.backend_name, self._model.backend_reason

    def prepare(self, frame: Picture) -> NDArray[Any] | None:
        return None

    def derain(self, tile: Picture, context: NDArray[Any] | None) -> tuple[Picture, RainMap]:
        return self._model(tile, attention=True)

    def close(self) -> None:
        self._model.close()


class _ContextTiles:
    """A tile graph and its companion, which looks at the whole frame once."""

    def __init__(self, path: Path, backend: str, threads: int | None) -> None:
        self._tile = PartModel(path, "tile", backend, threads)
        try:
            companion = path.with_name(Path(self._tile.card.companion or "").name)
            self._context = PartModel(companion, "context", backend, threads)
        except BaseException:
            self._tile.close()
            raise
        self.card = self._tile.card
        self.about = self._tile.device, self._tile.backend_name, self._tile.backend_reason
        self._picture, self._rain = self._tile.port("picture"), self._tile.port("attention")
        self._vector = self._context.port("context").name

    def prepare(self, frame: Picture) -> NDArray[Any] | None:
        card = self._context.card
        if card.context_reading is not None:
            frame = overview(frame, card.context_reading, card.geometry.multiple_of)
        return self._context(frame)[self._vector]

    def derain(self, tile: Picture, context: NDArray[Any] | None) -> tuple[Picture, RainMap]:
        outputs = self._tile(tile, context)
        rain: RainMap = outputs[self._rain.name][0].astype(np.float32, copy=False)
        picture = outputs[self._picture.name]
        if is_native(self._picture):
            return picture[0], rain
        clean = np.empty(tile.shape, np.uint8)
        to_bgr(picture, self._picture, clean)
        return clean, rain

    def close(self) -> None:
        self._tile.close()
        self._context.close()


class TiledModel:
    """Called like :class:`derain.runtime.model.Model`; memory beside frame and result is that of one tile."""

    def __init__(self, tiles: _WholeTiles | _ContextTiles, tile: int) -> None:
        self._tiles = tiles
        self._side = tile
        self.card = tiles.card
        self.device, self.backend_name, self.backend_reason = tiles.about
        self._lock = threading.Lock()

    @overload
    def __call__(self, frame: Picture, *, attention: Literal[False] = False) -> Picture: ...

    @overload
    def __call__(self, frame: Picture, *, attention: Literal[True]) -> tuple[Picture, RainMap]: ...

    def __call__(self, frame: Picture, *, attention: bool = False) -> Picture | tuple[Picture, RainMap]:
        """Derain one frame, uint8 (H, W, 3) BGR; with ``attention`` also give the rain map, float32 (H, W).

        Raises:
            FrameError: another type or shape, or smaller than the model takes.
            BackendError: the inference failed.
        """
        require_frame(frame, self.card)
        height, width = frame.shape[:2]
        clean: Picture = np.empty((height, width, 3), np.uint8)
        rain = np.empty((height, width), np.float32) if attention else None
        rows, columns = (plan(length, self._side, self.card.geometry) for length in (height, width))
        with self._lock:
            context = self._tiles.prepare(frame)
            for row in rows:
                for column in columns:
                    tile = np.ascontiguousarray(frame[row.start : row.end, column.start : column.end])
                    derained, map_ = self._tiles.derain(tile, context)
                    _lay(clean, derained, row, column)
                    if rain is not None:
                        _lay(rain, map_, row, column)
        return clean if rain is None else (clean, rain)

    def close(self) -> None:
        """Give the memory back."""
        self._tiles.close()

    def __enter__(self) -> TiledModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lay(whole: NDArray[Any], tile: NDArray[Any], row: Span, column: Span) -> None:
    """Put the used part of a tile into its place, fading in over what lies there already."""
    used = tile[row.first - row.start : row.last - row.start, column.first - column.start : column.last - column.start]
    place = whole[row.first : row.last, column.first : column.last]
    top, left = row.fade, column.fade
    place[top:, left:] = used[top:, left:]
    if top:
        _fade(place[:top], used[:top], _ramp(top)[:, None] * _opacity(place.shape[1], left)[None, :])
    if left:
        _fade(place[top:, :left], used[top:, :left], _ramp(left)[None, :])


def _ramp(length: int) -> NDArray[np.float32]:
    return ((np.arange(length) + 0.5) / length).astype(np.float32)


def _opacity(length: int, fade: int) -> NDArray[np.float32]:
    opacity = np.ones(length, np.float32)
    opacity[:fade] = _ramp(fade)
    return opacity


def _fade(below: NDArray[Any], above: NDArray[Any], opacity: NDArray[np.float32]) -> None:
    weights = opacity if below.ndim == 2 else opacity[..., None]
    mixed = below + weights * (above.astype(np.float32) - below)
    below[:] = np.rint(mixed) if below.dtype == np.uint8 else mixed
