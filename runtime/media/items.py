"""What flows from a source to a sink, and the contract of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """One picture on its way.

    Attributes:
        pixels: uint8 (H, W, 3) BGR, upright as a viewer sees it.
        index: 0, 1, 2 ... in the source's order.
        name: file name of a picture; empty for video.
        pts: presentation time in units of the source's time base; None for pictures.
        duration: in the same units, 0 when unknown.
        seconds: presentation time of a file's frame; None where time is that of arrival.
    """

    pixels: Picture
    index: int
    name: str = ""
    pts: int | None = None
    duration: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Passenger:
    """A packet of sound or subtitles (an ``av.Packet``) that goes from source to sink untouched."""

    packet: Any


Item: TypeAlias = Frame | Passenger


class Source(Protocol):
    """Gives items in order. Used in a ``with`` block, by one thread."""

    frame_count: int | None
    """How many frames will come, None when unknown; for progress only."""
    warnings: list[str]
    """What went wrong without ending the stream, one sentence each; complete once the iteration has ended."""
    damaged: int
    """Frames left out so far because they could not be read."""

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Item]: ...


@runtime_checkable
class Interruptible(Protocol):
    """A source whose reading can be made to return from another thread, although nothing comes."""

    def interrupt(self) -> None:
        """End the reading."""


@runtime_checkable
class Finite(Protocol):
    """A source that knows, once it was entered, whether it has an end."""

    finite: bool
    """Whether it ends by itself, waits meanwhile for whoever reads it, and gives its frames their own times."""


class Sink(Protocol):
    """Takes pictures in order. Used in a ``with`` block; leaving it with an exception leaves no output behind."""

    warnings: list[str]

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, pixels: Picture, frame: Frame) -> None:
        """Store a uint8 (H, W, 3) BGR picture that was made from ``frame``."""

    def carry(self, passenger: Passenger) -> None:
        """Store a packet untouched, or drop it where the format has no place for it."""
