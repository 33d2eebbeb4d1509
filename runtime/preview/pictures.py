"""JPEG pictures of what the pipeline made last, made once however many look, and only while somebody does."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from derain.runtime.compare import rain_picture
from derain.runtime.live.run import LiveRun
from derain.runtime.media.items import Picture
from derain.runtime.pipeline import Derained

View: TypeAlias = Literal["before", "after", "rain"]
VIEWS: tuple[View, ...] = ("before", "after", "rain")
# What a screen shows; more would only load the network.
_MOST_PIXELS = 1280 * 720


@dataclass(frozen=True)
class Shot:
    """One view of one frame: JPEG bytes, and the frame's number in its stream."""

    index: int
    jpeg: bytes


class Pictures:
    """Encodes on demand; called from any thread.

    Args:
        run: whose latest results are shown. Taking them does not hold it up.
        quality: of the JPEG, 1 to 100.
    """

    def __init__(self, run: LiveRun, quality: int = 80) -> None:
        self._run = run
        self._quality = quality
        self._shots: dict[tuple[str, View], tuple[Derained, Shot]] = {}
        self._lock = threading.Lock()
        self.encoded = 0

    def newest(self, name: str) -> int | None:
        """Number of the newest frame, None before the first.

        Raises:
            UsageError: no stream has that name.
        """
        latest = self._run.latest(name)
        return None if latest is None else latest.frame.index

    def shots(self, name: str, views: tuple[View, ...], full: bool = False) -> list[Shot] | None:
        """These views of the newest frame, all of the same one; None before the first.

        Args:
            full: in full size and high quality, for a snapshot.

        Raises:
            UsageError: no stream has that name.
        """
        latest = self._run.latest(name)
        if latest is None:
            return None
        if full:
            return [Shot(latest.frame.index, _jpeg(_view(latest, view), 95)) for view in views]
        found = []
        for view in views:
            with self._lock:
                known = self._shots.get((name, view))
                if known is None or known[0] is not latest:
                    shot = Shot(latest.frame.index, _jpeg(_smaller(_view(latest, view)), self._quality))
                    known = self._shots[name, view] = (latest, shot)
                    self.encoded += 1
            found.append(known[1])
        return found


def _view(derained: Derained, view: View) -> Picture:
    if view == "before":
        return derained.frame.pixels
    if view == "after":
        return derained.clean
    return np.zeros_like(derained.clean) if derained.rain is None else rain_picture(derained.rain)


def _smaller(pixels: Picture) -> Picture:
    import cv2

    height, width = pixels.shape[:2]
    scale = (_MOST_PIXELS / (height * width)) ** 0.5
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    scaled: Picture = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return scaled


def _jpeg(pixels: Picture, quality: int) -> bytes:
    import cv2

    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return bytes(data)
