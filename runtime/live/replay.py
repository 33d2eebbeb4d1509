"""A file that plays like a camera: in its own time, and from the beginning again when it ends."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType

from derain.errors import MediaError
from derain.runtime.media.items import Frame, Item, Source

_PICTURE_SECONDS = 1.0


class Replay:
    """Opens a file's source again and again.

    Args:
        make: a new source of the file.
        paced: keep the file's own times; otherwise as fast as it is taken.
        sleep: waits that many seconds.
        now: seconds.
    """

    frame_count: int | None = None

    def __init__(
        self,
        make: Callable[[], Source],
        paced: bool = True,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._paced, self._sleep, self._now = make, paced, sleep, now
        self.warnings: list[str] = []
        self.damaged = 0

    def __enter__(self) -> Replay:
        self._stack = ExitStack()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[Item]:
        index = 0
        while True:
            begin, frames = self._now(), 0
            source = self._stack.enter_context(self._make())
            first: float | None = None
            for item in source:
                if not isinstance(item, Frame):
                    continue
                seconds = frames * _PICTURE_SECONDS if item.seconds is None else item.seconds
                first = seconds if first is None else first
                if self._paced:
                    self._sleep(max(0.0, begin + seconds - first - self._now()))
                # Its time is now that of its arrival: the file's own begins again with each round.
                yield dataclasses.replace(item, index=index, seconds=None)
                index, frames = index + 1, frames + 1
            self.damaged += source.damaged
            self._stack.close()
            if not frames:
                raise MediaError("The file gives no frame")
