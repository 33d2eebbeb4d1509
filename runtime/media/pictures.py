"""Pictures on disk as source and sink: one file, or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from derain.errors import FrameError, MediaError, UsageError
from derain.images import IMAGE_SUFFIXES, read_image, write_image
from derain.runtime.media.items import Frame, Item, Passenger, Picture

_NUMBER = re.compile(r"%0?\d{0,2}d")


def is_sequence(target: str) -> bool:
    """Whether an output is a picture sequence: ``out/%06d.png``.

    Raises:
        UsageError: it is nearly one, but not a pattern that can be filled in.
    """
    path = Path(target)
    if path.suffix.lower() not in IMAGE_SUFFIXES or "%" not in target:
        return False
    if len(_NUMBER.findall(path.name)) != 1 or target.count("%") != 1:
        raise UsageError(f"'{target}' is no pattern for numbered pictures", expected="for example out/%06d.png")
    return True


class PictureSource:
    """Reads pictures in the order given. One that cannot be read is left out; when all are, that is an error.

    Attributes:
        damaged: pictures that could not be read.

    Raises:
        FrameError: while iterating, when a single picture, or every one of several, cannot be read.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.frame_count: int | None = len(paths)
        self.warnings: list[str] = []
        self.damaged = 0

    def __enter__(self) -> PictureSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open between two pictures."""

    def __iter__(self) -> Iterator[Item]:
        index = 0
        for path in self.paths:
            try:
                pixels = read_image(path)
            except FrameError as error:
                if len(self.paths) == 1:
                    raise
                self.damaged += 1
                self.warnings.append(str(error))
                continue
            yield Frame(pixels, index, name=path.name)
            index += 1
        if index == 0:
            raise MediaError(
                f"None of the {len(self.paths)} pictures could be read; the first: {self.warnings[0]}",
                expected="at least one whole picture",
            )


class PictureSink:
    """Writes each picture to the path that ``place`` gives for its frame; every file appears whole or not at all."""

    def __init__(self, place: Callable[[Frame], Path]) -> None:
        self._place = place
        self.warnings: list[str] = []

    def __enter__(self) -> PictureSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Each picture is finished when it is written."""

    def write(self, pixels: Picture, frame: Frame) -> None:
        """Store a uint8 (H, W, 3) BGR picture."""
        write_image(self._place(frame), pixels)

    def carry(self, passenger: Passenger) -> None:
        """Pictures have no sound."""
