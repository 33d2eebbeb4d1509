"""Where calibration frames come from: folders of pictures or pairs, and videos, read as a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from derain.errors import DataError, MediaError
from derain.files import check_size
from derain.images import IMAGE_SUFFIXES, list_images, read_image
from derain.runtime.ports import Picture

_RAINY = ("rainy", "rain", "input")
_CLEAN = ("clean", "norain", "gt", "target")
_MAX_SPLIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Candidate:
    """One frame of a source.

    Attributes:
        name: a picture's path, or ``VIDEO#INDEX``.
        read: gives the pixels, uint8 (H, W, 3) BGR; those of a video must be read before the next frame is asked for.
        truth: its ground truth, where there is one.
        held_out: whether the split file holds it out.
        source: name of the folder or file that was given.
    """

    name: str
    read: Callable[[], Picture]
    truth: Path | None = None
    held_out: bool = False
    source: str = ""


def stream(
    sources: Sequence[Path], split: Path | None = None, only: Collection[str] | None = None
) -> Iterator[Candidate]:
    """Frames of all sources, one after the other, always in the same order; one is in memory at a time.

    Args:
        sources: each a folder of pictures, a folder of pairs (sub-folders such as ``rainy`` and ``clean`` with equal
            names), a picture, or a video.
        split: a split file as ``derain train`` takes it.
        only: names to read; None reads all.

    Raises:
        MediaError: a source is missing or holds nothing that can be read.
        DataError: a pair is incomplete, or the split file is not one.
    """
    held = {} if split is None else _read_split(split)
    for source in sources:
        for candidate in _read(source, held.get(source.resolve(), set()), only):
            yield replace(candidate, source=source.resolve().name)


def _read(source: Path, held: set[str], only: Collection[str] | None) -> Iterator[Candidate]:
    if source.is_dir():
        yield from _folder(source, held, only)
    elif source.suffix.lower() in IMAGE_SUFFIXES and source.is_file():
        if only is None or str(source) in only:
            yield Candidate(str(source), partial(read_image, source))
    elif source.exists():
        yield from _video(source, only)
    else:
        raise MediaError(f"'{source}' does not exist", expected="a folder of pictures, a picture, or a video")


def _folder(folder: Path, held: set[str], only: Collection[str] | None) -> Iterator[Candidate]:
    rainy, clean = _sub_folder(folder, _RAINY), _sub_folder(folder, _CLEAN)
    truths = {} if rainy is None or clean is None else {path.stem: path for path in list_images(clean)}
    for path in list_images(rainy or folder):
        if only is not None and str(path) not in only:
            continue
        if truths and path.stem not in truths:
            raise DataError(
                f"'{path}' has no partner in '{clean}'", fix="Add the missing picture, or take this one out"
            )
        yield Candidate(str(path), partial(read_image, path), truths.get(path.stem), path.name in held)


def _sub_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _video(path: Path, only: Collection[str] | None) -> Iterator[Candidate]:
    from derain.runtime.media.items import Frame
    from derain.runtime.media.video_reader import VideoReader

    prefix = f"{path}#"
    last = None if only is None else max((int(n[len(prefix) :]) for n in only if n.startswith(prefix)), default=-1)
    if last == -1:
        return
    with VideoReader(path) as reader:
        for item in reader:
            if not isinstance(item, Frame):
                continue
            name = f"{prefix}{item.index}"
            if only is None or name in only:
                yield Candidate(name, partial(_same, item.pixels))
            if item.index == last:
                return


def _same(pixels: Picture) -> Picture:
    return pixels


def _read_split(path: Path) -> dict[Path, set[str]]:
    check_size(path, _MAX_SPLIT_BYTES, DataError)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            (path.parent / folder).resolve(): {str(name) for name in names}
            for folder, names in document.items()
            if folder != "about" and isinstance(names, list)
        }
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"'{path}' is not a split file ({error})", expected='JSON: {"FOLDER": ["NAME", ...]}'
        ) from error
