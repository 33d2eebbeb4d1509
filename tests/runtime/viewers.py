"""A live run with two synthetic cameras for the tests of the preview, and its server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import numpy as np

from derain.runtime.live.run import LiveRun
from derain.runtime.live.stream import StreamSpec
from derain.runtime.media.items import Frame, Item
from derain.runtime.pipeline import Derained
from derain.runtime.preview.server import PreviewServer

# Before is dark blue, after is light: whichever side of the divider a pixel is on can be told from it.
BEFORE, AFTER = (160, 40, 20), (200, 230, 240)


class Synthetic:
    """About fifty frames a second of one colour, with a white bar that moves."""

    frame_count: int | None = None
    damaged = 0

    def __init__(self, width: int, height: int) -> None:
        self.size = (height, width)
        self.warnings: list[str] = []

    def __enter__(self) -> Synthetic:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def __iter__(self) -> Iterator[Item]:
        index = 0
        while True:
            pixels = np.full((*self.size, 3), BEFORE, np.uint8)
            at = 3 * index % (self.size[0] // 4)
            pixels[at : at + 4] = 255
            yield Frame(pixels, index)
            time.sleep(0.02)
            index += 1


def brighter(frame: Frame) -> Derained:
    clean = np.full_like(frame.pixels, AFTER)
    rain = np.full(frame.pixels.shape[:2], 0.5, np.float32)
    return Derained(frame, clean, rain, intensity=0.42)


@contextmanager
def served(token: str | None = None, host: str = "127.0.0.1") -> Iterator[tuple[LiveRun, PreviewServer]]:
    specs = [
        StreamSpec(name, lambda size=size: Synthetic(*size), brighter)  # type: ignore[misc]
        for name, size in (("front", (320, 180)), ("rear", (240, 240)))
    ]
    run = LiveRun(specs)
    server = PreviewServer(run, host, 0, token)
    run.start()
    server.start()
    try:
        while any(report.delivered == 0 for report in run.reports()):
            time.sleep(0.01)
        yield run, server
    finally:
        server.stop()
        run.stop()
        run.wait(10)
