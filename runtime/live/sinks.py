"""Where live results go: a recording, a server, a GStreamer pipeline, pictures, or nowhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from derain.errors import MediaError
from derain.images import write_image
from derain.runtime.live.encoder import even_size, fitted
from derain.runtime.live.gstreamer import GStreamerPush
from derain.runtime.live.stream import Reconnect, SinkAwayError
from derain.runtime.media.items import Picture

log = logging.getLogger(__name__)


class LiveSink(Protocol):
    """Takes pictures of a stream as they come, in one thread."""

    def write(self, pixels: Picture, seconds: float) -> None:
        """A uint8 (H, W, 3) BGR picture and its time.

        Raises:
            MediaError: it cannot be stored.
            SinkAwayError: it was dropped; later ones may do better.
        """

    def close(self) -> None:
        """Finish; keeps everything written so far, also after an error."""


class NullSink:
    """Takes everything and keeps nothing: to measure, to look at the preview only, or to try a source."""

    def write(self, pixels: Picture, seconds: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing is open."""


class GStreamerSink:
    """Pictures into a GStreamer pipeline, started anew when the size changes.

    Args:
        pipeline: takes ``video/x-raw``.
        live: pictures have the time they are written at; otherwise those of their file.
    """

    def __init__(self, pipeline: str, live: bool = True) -> None:
        self._pipeline = pipeline
        self._live = live
        self._push: GStreamerPush | None = None
        self._size = (0, 0)

    def write(self, pixels: Picture, seconds: float) -> None:
        size = even_size(pixels)
        if self._push is None or size != self._size:
            self.close()
            self._push, self._size = GStreamerPush(self._pipeline, size), size
        self._push.write(fitted(pixels, *size), None if self._live else seconds)

    def close(self) -> None:
        push, self._push = self._push, None
        if push is not None:
            push.close()


class PictureSequence:
    """One picture file for each frame, numbered from 0; each appears whole.

    Args:
        pattern: with a place for the number, such as ``out/%06d.png``.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._count = 0

    def write(self, pixels: Picture, seconds: float) -> None:
        write_image(Path(self._pattern % self._count), pixels)
        self._count += 1

    def close(self) -> None:
        """Each picture is finished when it is written."""


class Reopening:
    """A sink that may be away: frames are dropped until it is back, with growing pauses between the attempts.

    Args:
        make: a new sink for each attempt.
        pauses: how long to wait.
        now: seconds, for the pauses.
    """

    def __init__(
        self, make: Callable[[], LiveSink], pauses: Reconnect | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._pauses = pauses or Reconnect()
        self._now = now
        self._sink: LiveSink | None = None
        self._failures = 0
        self._opened = 0.0
        self._next = 0.0
        self._reason = ""

    def write(self, pixels: Picture, seconds: float) -> None:
        if self._sink is None:
            if self._now() < self._next:
                raise SinkAwayError(self._reason)
            self._sink, self._opened = self._make(), self._now()
        try:
            self._sink.write(pixels, seconds)
        except MediaError as error:
            sink, self._sink = self._sink, None
            with suppress(MediaError):
                sink.close()
            self._failures += 1
            self._reason = str(error)
            pause = self._pauses.delay(self._failures)
            self._next = self._now() + pause
            log.warning("%s Trying again in %g s.", self._reason, pause)
            raise SinkAwayError(self._reason) from error
        # A pipeline takes a frame or two before it says that it failed: one frame does not make a sink that works.
        if self._now() - self._opened >= self._pauses.steady:
            self._failures = 0

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()
