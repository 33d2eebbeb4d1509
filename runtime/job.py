"""One run from a source to its outputs: what is read, what is written where, and what must not be overwritten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from derain.errors import UsageError
from derain.images import IMAGE_SUFFIXES, list_images
from derain.runtime import compare, pipeline
from derain.runtime.flight import flight_of
from derain.runtime.media.codecs import Codec, require_crf
from derain.runtime.media.items import Frame, Passenger, Picture, Sink, Source
from derain.runtime.media.pictures import PictureSink, PictureSource, is_sequence
from derain.runtime.media.video_reader import VideoReader
from derain.runtime.media.video_writer import VIDEO_SUFFIXES, VideoWriter, require_video_suffix
from derain.runtime.model import Derainer
from derain.runtime.pipeline import Derained
from derain.runtime.statistics import RunStats

Render: TypeAlias = Callable[[Derained], Picture]
RAIN = "rain"


@dataclass(frozen=True)
class Job:
    """What to do.

    Attributes:
        source: a picture, a folder of pictures, or a video file.
        target: a picture, a folder, or a ``.mp4``, ``.mkv``, ``.mov`` file, matching the source; for a picture or a
            video also an existing folder, which then gets a file of the source's name; for a video also a numbered
            sequence of pictures (``out/%06d.png``).
        side_by_side: write original and result beside each other instead of the result alone.
        attention: also write the rain map, as ``NAME.rain.SUFFIX`` or into ``TARGET/rain``.
        codec, crf: what a video is encoded with, and its quality as that encoder counts it.
        force: overwrite existing outputs.
    """

    source: Path
    target: Path
    side_by_side: bool = False
    attention: bool = False
    codec: Codec = "h264"
    crf: int = 18
    force: bool = False


@dataclass(frozen=True)
class JobResult:
    """What was done; ``failed`` counts pictures that could not be read, ``warnings`` are whole sentences."""

    stats: RunStats
    outputs: list[Path]
    warnings: list[str]
    failed: int


@dataclass(frozen=True)
class _Output:
    sink: Sink
    render: Render


def run_job(
    job: Job,
    model: Derainer,
    *,
    infer: pipeline.Infer | None = None,
    seen: Callable[[Derained], None] | None = None,
    stop: threading.Event | None = None,
    begin: Callable[[int | None], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> JobResult:
    """Derain a source into its outputs; these appear whole, or not at all when an error ends the run.

    Args:
        infer: in place of calling the model, for example with a rain gate around it.
        seen: called for each result, in order, before it is written.
        stop: when set, reading ends, what was read is finished, and the outputs hold that part.
        begin: called once with the number of frames to expect, None when unknown.
        progress: called now and then with the number of frames done.

    Raises:
        UsageError: source and target do not match, are the same, or an output exists and ``force`` is not set.
        MediaError, FrameError: the source cannot be read, or an output cannot be written.
        KeyboardInterrupt: stopped before the first frame was done.
    """
    source, targets = _open(job)
    renders: list[Render] = [_side_by_side if job.side_by_side else _clean]
    if job.attention:
        renders.append(_rain)

    def call(frame: Frame) -> Derained:
        if job.attention:
            clean, rain = model(frame.pixels, attention=True)
            return Derained(frame, clean, rain)
        return Derained(frame, model(frame.pixels))

    with ExitStack() as stack:
        stack.enter_context(source)
        if begin is not None:
            begin(source.frame_count)
        outputs = [
            _Output(stack.enter_context(_sink(job, source, target, render)), render)
            for target, render in zip(targets, renders, strict=True)
        ]

        def deliver(outcome: pipeline.Outcome) -> None:
            if seen is not None and isinstance(outcome, Derained):
                seen(outcome)
            for output in outputs:
                if isinstance(outcome, Passenger):
                    output.sink.carry(outcome)
                else:
                    output.sink.write(output.render(outcome), outcome.frame)

        if infer is None:
            infer = stack.enter_context(flight_of(model, job.attention, source.frame_count)) or call
        stats = pipeline.run(source, infer, deliver, stop=stop, progress=progress)
    warnings = source.warnings + [warning for output in outputs for warning in output.sink.warnings]
    return JobResult(stats, targets, warnings, source.damaged if isinstance(source, PictureSource) else 0)


def check_job(job: Job) -> None:
    """Find out what is wrong with a job before anything is read or written, as far as names tell it.

    Raises:
        UsageError: as for :func:`run_job`.
    """
    _open(job)


def inside(folder: Path, source: Path, name: str) -> Path:
    """Where a picture or a video goes in a folder of results: under ``name``, with a suffix that can be written."""
    suffix = source.suffix if source.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) else ".mp4"
    return folder / f"{name}{suffix}"


def _open(job: Job) -> tuple[VideoReader | PictureSource, list[Path]]:
    """The source, and the path of each output, checked before anything is read or written."""
    source, target = job.source, job.target
    if not source.exists():
        raise UsageError(f"Source '{source}' does not exist", expected="a picture, a folder of pictures, or a video")
    if source.is_dir():
        return _open_folder(job)
    picture = source.suffix.lower() in IMAGE_SUFFIXES
    if target.is_dir():
        target = inside(target, source, source.stem)
    if not picture:
        if not is_sequence(str(target)):
            require_video_suffix(target)
            require_crf(job.codec, job.crf)
    elif target.suffix.lower() not in IMAGE_SUFFIXES:
        raise UsageError(
            f"Output '{target}' does not fit the picture '{source}'",
            expected="a name ending in " + ", ".join(IMAGE_SUFFIXES),
        )
    targets = [target]
    if job.attention:
        targets.append(target.with_name(f"{target.stem}.{RAIN}{target.suffix}"))
    for path in targets:
        _require_free(path if picture else _picture(path, 0), source, job.force)
    return PictureSource([source]) if picture else VideoReader(source), targets


def _open_folder(job: Job) -> tuple[PictureSource, list[Path]]:
    if job.target.exists() and not job.target.is_dir():
        raise UsageError(f"Output '{job.target}' is a file, but the source is a folder", expected="a folder")
    if job.target.suffix.lower() in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES) and not job.target.is_dir():
        raise UsageError(f"Output '{job.target}' is named like a file, but the source is a folder", expected="a folder")
    pictures = list_images(job.source)
    targets = [job.target]
    if job.attention:
        targets.append(job.target / RAIN)
    for folder in targets:
        for picture in pictures:
            _require_free(folder / picture.name, picture, job.force)
    return PictureSource(pictures), targets


def _require_free(target: Path, source: Path, force: bool) -> None:
    if not target.exists():
        return
    if target.samefile(source):
        raise UsageError(f"Output '{target}' is the source itself", fix="Give another name or folder")
    if not force:
        raise UsageError(f"Output '{target}' exists already", fix="Give another name, or overwrite it with --force")


def _sink(job: Job, source: Source, target: Path, render: Render) -> Sink:
    if isinstance(source, VideoReader):
        if is_sequence(str(target)):
            return PictureSink(lambda frame: _picture(target, frame.index))
        info = source.info
        if render is _side_by_side:
            info = info.shown(compare.compared_width(info.width), info.height)
        return VideoWriter(target, info, job.crf, sound=render is not _rain, codec=job.codec)
    if job.source.is_dir():
        return PictureSink(lambda frame: target / frame.name)
    return PictureSink(lambda frame: target)


def _picture(target: Path, number: int) -> Path:
    """One picture of a numbered sequence; the path itself where it is none."""
    return Path(str(target) % number) if is_sequence(str(target)) else target


def _clean(derained: Derained) -> Picture:
    return derained.clean


def _side_by_side(derained: Derained) -> Picture:
    return compare.side_by_side(derained.frame.pixels, derained.clean)


def _rain(derained: Derained) -> Picture:
    if derained.rain is None:  # a dry frame passed the gate, and nobody looked
        return np.zeros_like(derained.clean)
    return compare.rain_picture(derained.rain)
