"""Steadiness of video: how much a picture flickers beyond what moves in it, and a filter that calms it.

The measure is the warping error of blind video consistency (Lai et al., "Learning Blind Video Temporal Consistency",
ECCV 2018, section 3.3): each frame against the one before, moved along the optical flow, where the flow can be trusted.
Here the flow comes from the input for both, so that input and output are judged by the same pixels. A blurred picture
flickers less as well: the figure says nothing without PSNR or a look beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.errors import FrameError, MissingDependencyError, UsageError
from derain.runtime.media.items import Frame, Picture
from derain.runtime.pipeline import Derained

Grey = NDArray[np.uint8]
Flow = NDArray[np.float32]
# Flow there and back must end within this many pixels of where it began, else the pixel is covered or uncertain.
_TRUST_PIXELS = 1.0
# Differences of a few levels are flicker; larger ones are content, or rain that was missed, and stay.
_FLICKER_LEVELS = 10.0


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("cv2", needed_for="Optical flow", extra="opencv") from error
    return cv2


class _Motion:
    """Dense optical flow (DIS, Kroeger et al., ECCV 2016) from each frame back to the one before."""

    def __init__(self) -> None:
        cv2 = _cv2()
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._columns = self._rows

    def between(self, now: Grey, before: Grey) -> tuple[Flow, NDArray[np.bool_]]:
        """Flow float32 (H, W, 2) in pixels, x first, from ``now`` to ``before``; and where it can be trusted."""
        back: Flow = self._dis.calc(now, before, None)
        forth: Flow = self._dis.calc(before, now, None)
        returned = back + self.warp(forth, back)
        return back, np.hypot(returned[..., 0], returned[..., 1]) < _TRUST_PIXELS

    def warp(self, picture: NDArray[Any], flow: Flow) -> NDArray[Any]:
        """``picture`` of the frame before, moved to where its content is now."""
        cv2 = _cv2()
        height, width = flow.shape[:2]
        if self._rows.shape != (height, width):
            self._rows, self._columns = np.mgrid[0:height, 0:width].astype(np.float32)
        moved: NDArray[Any] = cv2.remap(
            picture,
            self._columns + flow[..., 0],
            self._rows + flow[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return moved


def _grey(pixels: Picture) -> Grey:
    cv2 = _cv2()
    grey: Grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    return grey


@dataclass(frozen=True)
class Flicker:
    """Mean absolute difference along the motion, in levels of 255, over ``pairs`` of successive frames."""

    input: float
    output: float
    pairs: int

    @property
    def ratio(self) -> float:
        """Output to input; below 1 the result is steadier than what came in."""
        return self.output / self.input if self.input > 0 else 1.0


class FlickerMeter:
    """Adds up the flicker of a video, frame by frame."""

    def __init__(self) -> None:
        self._motion = _Motion()
        self._before: tuple[Grey, Grey, Grey] | None = None
        self._sums = np.zeros(2)
        self._pairs = 0

    def add(self, rainy: Picture, clean: Picture) -> None:
        """The next frame as it came and as it went out, both uint8 (H, W, 3) BGR of one size.

        Raises:
            FrameError: another size than the frame before.
        """
        # Streaks are thin and move on their own: the median leaves the scene to the flow.
        guide: Grey = _cv2().medianBlur(_grey(rainy), 5)
        greys = _grey(rainy), _grey(clean)
        if self._before is not None:
            if self._before[0].shape != guide.shape:
                raise FrameError(f"The frame has {guide.shape[1]} x {guide.shape[0]} pixels", expected="one size")
            flow, trusted = self._motion.between(guide, self._before[0])
            if trusted.any():
                for place, (now, before) in enumerate(zip(greys, self._before[1:], strict=True)):
                    moved = self._motion.warp(before, flow)
                    self._sums[place] += np.abs(now.astype(np.int16) - moved)[trusted].mean()
                self._pairs += 1
        self._before = (guide, *greys)

    def result(self) -> Flicker:
        """The means so far."""
        pairs = max(self._pairs, 1)
        return Flicker(float(self._sums[0]) / pairs, float(self._sums[1]) / pairs, self._pairs)


class SteadyFilter:
    """Blends each result with the one before, moved along the motion, where the two differ by a flicker only.

    What is covered, uncertain or really different is left alone, so nothing trails behind a moving object.

    Args:
        strength: share of the past in a pixel that did not change, 0 (none) to below 1.
    """

    def __init__(self, strength: float = 0.6) -> None:
        if not 0 <= strength < 1:
            raise UsageError(f"The steadiness is {strength}", expected="0 (off) to below 1, for example 0.6")
        self._strength = strength
        self._motion = _Motion()
        self._past: Picture | None = None

    def __call__(self, derained: Derained) -> Derained:
        """The steadied result; a frame that passed the gate is not touched, and begins anew."""
        if derained.gated or self._strength == 0:
            self._past = None
            return derained
        return dataclasses.replace(derained, clean=self.steady(derained.clean))

    def steady(self, clean: Picture) -> Picture:
        """The next picture, uint8 (H, W, 3) BGR, steadied; a change of size begins anew."""
        past = self._past
        if past is None or past.shape != clean.shape:
            self._past = clean
            return clean
        cv2 = _cv2()
        flow, trusted = self._motion.between(_grey(clean), _grey(past))
        moved = self._motion.warp(past, flow).astype(np.float32)
        difference = moved - clean
        # Judged over a small neighbourhood, since a single pixel may agree by chance; but no pixel may jump either.
        largest = np.abs(difference).max(axis=2)
        size = np.maximum(cv2.blur(largest, (5, 5)), 0.7 * largest)
        share = self._strength * np.exp(-((size / _FLICKER_LEVELS) ** 2)) * trusted
        result: Picture = np.rint(clean + share[..., None] * difference).astype(np.uint8)
        self._past = result
        return result


def measure_video(
    derain: Callable[[Picture], Picture], path: Path, limit: int | None = None, strength: float = 0.6
) -> tuple[Flicker, Flicker]:
    """Flicker of a video or a folder of successive pictures, of the model's output and of the steadied output.

    Args:
        derain: uint8 (H, W, 3) BGR to the same.
        limit: at most that many frames.

    Raises:
        MediaError, FrameError: it cannot be read, or has fewer than two frames.
    """
    from derain.runtime.live.addresses import parse_address

    plain, steadied, filtering = FlickerMeter(), FlickerMeter(), SteadyFilter(strength)
    with parse_address(f"video={path}").open() as source:
        for count, frame in enumerate(_frames(source)):
            if limit is not None and count >= limit:
                break
            clean = derain(frame.pixels)
            plain.add(frame.pixels, clean)
            steadied.add(frame.pixels, filtering.steady(clean))
    if not plain.result().pairs:
        raise FrameError(f"'{path}' has no two frames to compare", expected="a video, or a folder of its frames")
    return plain.result(), steadied.result()


def _frames(source: Iterable[Any]) -> Iterable[Frame]:
    return (item for item in source if isinstance(item, Frame))
