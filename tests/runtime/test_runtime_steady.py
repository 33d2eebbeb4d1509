"""Flicker: measured where it is put in, and taken out without trails."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import derain
from derain.errors import FrameError, UsageError
from derain.images import write_image
from derain.runtime.media.items import Frame
from derain.runtime.pipeline import Derained
from derain.runtime.steady import FlickerMeter, SteadyFilter, measure_video

Picture = NDArray[np.uint8]


def scene(shift: int = 0) -> Picture:
    """A textured picture, panned by whole pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (160, 400, 3), np.uint8)
    smooth: Picture = cv2.GaussianBlur(noise, (0, 0), 4)
    wide: Picture = cv2.normalize(smooth, None, 30, 220, cv2.NORM_MINMAX)
    return np.ascontiguousarray(wide[20:140, 20 + shift : 220 + shift])


def flickering(picture: Picture, index: int, levels: float = 6) -> Picture:
    """Slow blobs of brightness that are new in each frame, as a network's residue is."""
    blobs = cv2.resize(np.random.default_rng(100 + index).normal(0, levels, (12, 20)), (200, 120))
    return np.clip(picture + blobs[..., None], 0, 255).astype(np.uint8)


def flicker_of(frames: list[Picture], inputs: list[Picture]) -> float:
    meter = FlickerMeter()
    for rainy, clean in zip(inputs, frames, strict=True):
        meter.add(rainy, clean)
    return meter.result().output


def test_motion_is_no_flicker() -> None:
    still, pan = [scene()] * 6, [scene(2 * i) for i in range(6)]
    assert flicker_of(still, still) == 0
    compensated = flicker_of(pan, pan)
    plain = np.mean([np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(pan)])
    assert compensated < 0.25 * plain


def test_flicker_is_measured_in_levels() -> None:
    pan = [scene(2 * i) for i in range(8)]
    steady = flicker_of(pan, pan)
    found = [flicker_of([flickering(p, i, level) for i, p in enumerate(pan)], pan) for level in (3, 6)]
    assert steady < found[0] < found[1]
    assert 1.5 < (found[1] - steady) / (found[0] - steady) < 3


def test_the_filter_calms_flicker_and_keeps_detail() -> None:
    pan = [scene(2 * i) for i in range(10)]
    noisy = [flickering(p, i) for i, p in enumerate(pan)]
    filtering = SteadyFilter(0.6)
    calm = [filtering.steady(p) for p in noisy]
    assert flicker_of(calm[2:], pan[2:]) < 0.7 * flicker_of(noisy[2:], pan[2:])
    error_before = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(noisy[3:], pan[3:], strict=True)])
    error_after = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(calm[3:], pan[3:], strict=True)])
    assert error_after < error_before


def test_nothing_trails_behind_what_moves() -> None:
    """A bright square crosses a still scene by eight pixels a frame: where it was, the scene is back at once."""
    filtering = SteadyFilter(0.9)
    for index in range(12):
        frame = scene().copy()
        left = 8 * index
        frame[40:80, left : left + 24] = (250, 250, 60)
        before = frame.copy()
        result = filtering.steady(frame)
        np.testing.assert_array_equal(frame, before)
        assert np.abs(result.astype(int) - frame).max() <= 8


@pytest.mark.parametrize(("strength", "most"), [(0.6, 4), (0.9, 6)])
def test_no_value_moves_far_from_what_the_model_gave(strength: float, most: int) -> None:
    """The past counts the less the more it differs, so a ghost can never be stronger than a few levels."""
    filtering = SteadyFilter(strength)
    largest = 0
    for index in range(30):
        frame = flickering(scene(), index, levels=index)
        largest = max(largest, int(np.abs(filtering.steady(frame).astype(int) - frame).max()))
    assert 2 <= largest <= most


def test_gated_frames_pass_and_sizes_may_change() -> None:
    filtering = SteadyFilter(0.6)
    first, second = scene(), flickering(scene(), 1)
    filtering(Derained(Frame(first, 0), first))
    passed = filtering(Derained(Frame(second, 1), second, gated=True))
    assert passed.clean is second
    after = filtering(Derained(Frame(second, 2), second))
    assert after.clean is second, "begins anew"
    small = np.ascontiguousarray(second[:60])
    assert filtering(Derained(Frame(small, 3), small)).clean is small


def test_a_folder_of_frames(tmp_path: Path) -> None:
    for index in range(5):
        write_image(tmp_path / f"{index}.png", flickering(scene(), index))
    plain, steadied = measure_video(lambda picture: picture, tmp_path, limit=4)
    assert plain.pairs == 3
    assert plain.ratio == pytest.approx(1)
    assert steadied.output < plain.output
    write_image(tmp_path / "one" / "a.png", scene())
    with pytest.raises(FrameError, match="no two frames"):
        measure_video(lambda picture: picture, tmp_path / "one")


def test_refusals() -> None:
    with pytest.raises(UsageError, match="steadiness is 1"):
        SteadyFilter(1)
    meter = FlickerMeter()
    meter.add(scene(), scene())
    with pytest.raises(FrameError, match="one size"):
        meter.add(scene()[:50], scene()[:50])


@pytest.mark.full
@pytest.mark.parametrize("name", ["ntu_ra1", "yard.mp4"])
def test_real_rain(shared_data: Path, name: str) -> None:
    """With the shipped model: steadier than what came in, steadier still with the filter, and no ghosts."""
    filtering, largest = SteadyFilter(0.6), 0
    with derain.load("nano") as model:

        def call(picture: Picture) -> Picture:
            nonlocal largest
            clean = model(picture)
            largest = max(largest, int(np.abs(filtering.steady(clean).astype(int) - clean).max()))
            return clean

        plain, steadied = measure_video(call, shared_data / "video" / name, limit=20)
    assert plain.ratio < 1
    assert steadied.output < 0.85 * plain.output
    assert largest <= 4
