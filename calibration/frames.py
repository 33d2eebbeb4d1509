"""Frames of a calibration: the ones to calibrate with, and the held-out ones to judge by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from derain.calibration.descriptors import DRY, Description, describe, rain_strength
from derain.calibration.gate import Check
from derain.calibration.ranges import METHODS, Method
from derain.calibration.session import Runner, feed_of, require_size
from derain.calibration.sources import Candidate, stream
from derain.card import ModelCard
from derain.errors import CalibrationError, FrameError
from derain.images import read_image
from derain.runtime.ports import Picture

Kind = Literal["int8", "float8", "float16"]
T = TypeVar("T")

# Larger frames are cut to their middle: activations of a 4K frame would not fit into the memory promised.
_LARGEST = (544, 960)
_LOOK = 256
# Frames by which each tensor's range is chosen, and their largest side: many short runs are made with them.
_SAMPLES, _SAMPLE = 12, 256
_EVERY = 5  # without held-out frames of their own, every fifth frame of the sources is set aside


@dataclass(frozen=True)
class Options:
    """What to make.

    Attributes:
        frames: folders, pictures and videos to calibrate with.
        kind: precision to reach.
        max_drop: largest loss of PSNR, mean over the held-out frames, dB.
        check: further folders, pictures and videos, held out; pairs among them count with their ground truth.
        split: file that says which pictures of ``frames`` are held out.
        against: float32 model to judge by; None takes the model itself.
        count: calibration frames to choose.
        checks: held-out frames to use at most.
        methods: of ranges, to compare.
    """

    frames: tuple[Path, ...]
    kind: Kind = "int8"
    max_drop: float = 0.2
    check: tuple[Path, ...] = ()
    split: Path | None = None
    against: Path | None = None
    count: int = 64
    checks: int = 32
    methods: tuple[Method, ...] = METHODS

    @property
    def sets_aside(self) -> bool:
        """Whether frames to judge by must come out of the frames to calibrate with."""
        return not self.check and self.split is None


def _fitted(frame: Picture, card: ModelCard, name: str, largest: tuple[int, int] = _LARGEST) -> Picture:
    """The frame, or its middle where it is large."""
    if not card.profile.fixed:
        height, width = (min(side, most) for side, most in zip(frame.shape[:2], largest, strict=True))
        top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
        frame = frame[top : top + height, left : left + width]
    require_size(card, frame.shape[0], frame.shape[1], f"Frame '{name}'")
    return np.ascontiguousarray(frame)


def described(options: Options, plain: Runner) -> Iterator[tuple[str, Description]]:
    """Names and descriptions of all frames that may be calibrated with; the float32 model tells how rainy each is."""
    for index, candidate in enumerate(stream(options.frames, options.split)):
        if candidate.held_out or (options.sets_aside and _set_aside(index)):
            continue
        frame = _fitted(candidate.read(), plain.card, candidate.name)
        top, left = max(0, frame.shape[0] - _LOOK) // 2, max(0, frame.shape[1] - _LOOK) // 2
        look = frame if plain.card.profile.fixed else frame[top : top + _LOOK, left : left + _LOOK]
        yield candidate.name, describe(frame, plain.derain(np.ascontiguousarray(look))[1])


def feeds(options: Options, names: list[str], card: ModelCard) -> Iterator[dict[str, NDArray[Any]]]:
    """Inputs of the graph for the frames chosen, one at a time, in the order of the sources."""
    for candidate in stream(options.frames, options.split, set(names)):
        yield feed_of(card, _fitted(candidate.read(), card, candidate.name))


def samples(options: Options, names: list[str], plain: Runner) -> list[Check]:
    """The first frames chosen, which differ the most, cut to their middle; of a model of one size, fewer and whole."""
    profile = plain.card.profile
    count = max(4, _SAMPLES * _SAMPLE**2 // (profile.opt[1] * profile.opt[2])) if profile.fixed else _SAMPLES
    found = []
    for candidate in stream(options.frames, options.split, set(names[:count])):
        found.append(_check(candidate, plain, _LARGEST if profile.fixed else (_SAMPLE, _SAMPLE)))
    return found


def held_out(options: Options, plain: Runner) -> list[Check]:
    """Frames to judge by: those of the split and of ``check``, or those set aside.

    Raises:
        CalibrationError: there are none.
    """
    names = [c.name for c in stream(options.check)] if options.check else []
    sources = options.check
    if options.split is not None:
        held = [c.name for c in stream(options.frames, options.split) if c.held_out]
        names, sources = names + held, (*options.check, *options.frames)
    if options.sets_aside:
        names = [c.name for index, c in enumerate(stream(options.frames)) if _set_aside(index)]
        sources = options.frames
    if not names:
        raise CalibrationError(
            "There are no held-out frames to judge by",
            expected="frames that were not calibrated with",
            fix="Give --check FOLDER, or more --frames",
        )
    picked = set(spread(names, options.checks))
    return [_check(candidate, plain, _LARGEST) for candidate in stream(sources, options.split, picked)]


def _check(candidate: Candidate, plain: Runner, largest: tuple[int, int]) -> Check:
    pixels = candidate.read()
    frame = _fitted(pixels, plain.card, candidate.name, largest)
    truth = None if candidate.truth is None else read_image(candidate.truth)
    if truth is not None:
        if truth.shape != pixels.shape:
            raise FrameError(f"'{candidate.truth}' and '{candidate.name}' are of different sizes")
        truth = _fitted(truth, plain.card, str(candidate.truth), largest)
    derained, rain = plain.derain(frame)
    dry = truth is None and rain_strength(rain) < DRY
    return Check(candidate.name, frame, truth, derained, dry, candidate.source)


def _set_aside(index: int) -> bool:
    return index % _EVERY == 1


def spread(items: list[T], count: int) -> list[T]:
    """At most ``count`` of the items, evenly spread."""
    if len(items) <= count:
        return items
    return [items[index * len(items) // count] for index in range(count)]
