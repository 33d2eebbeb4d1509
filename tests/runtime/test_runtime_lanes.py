"""Several frames of a file at once on a CPU: the same pictures in the same order, and nothing left behind."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import REGULAR, make_video
from standin import expected, save_model

import derain
from derain.card import read_card
from derain.errors import BackendError, FrameError, UsageError
from derain.runtime import lanes
from derain.runtime.backends.base import Backend, Buffers
from derain.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from derain.runtime.backends.openvino_cpu import OpenVinoCpu
from derain.runtime.flight import flight_of
from derain.runtime.job import Job, run_job
from derain.runtime.lanes import Lanes, lanes_for
from derain.runtime.media.items import Frame
from derain.runtime.model import Model
from derain.runtime.pipeline import Derained, Outcome, run

BACKENDS = [OnnxRuntimeCpu, OpenVinoCpu]
FRAMES = 40


def noise(index: int, height: int = 36, width: int = 52) -> Any:
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_model(tmp_path / "standin.onnx")


class Meeting(OnnxRuntimeCpu):
    """Each inference waits for another one: one at a time would wait for ever."""

    name = "onnxruntime"

    def _open_impl(self) -> None:
        super()._open_impl()
        self.together = threading.Barrier(self.lanes)
        self.fail = False

    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        if self.fail:
            self.together.abort()
        try:
            self.together.wait(20)
        except threading.BrokenBarrierError:
            raise BackendError("broken in a lane") from None
        super()._infer_impl(inputs, outputs)


@pytest.mark.parametrize("kind", BACKENDS)
def test_lanes_of_a_backend_give_what_one_gives(path: Path, kind: type[Backend]) -> None:
    """Three threads at once, sizes that change, OpenVINO's graph of fixed size among them."""
    frames = [noise(index, *((36, 52) if index % 8 else (20, 30))) for index in range(60)]
    found: dict[int, Any] = {}
    with kind(path, read_card(path), threads=3, lanes=3) as backend:

        def some(first: int) -> None:
            for index in range(first, len(frames), 3):
                clean, rain = np.empty_like(frames[index]), np.empty(frames[index].shape[:2], np.float32)
                backend.infer({"frame": frames[index][None]}, {"derained": clean[None], "attention": rain[None]})
                found[index] = (clean, rain)

        threads = [threading.Thread(target=some, args=(first,)) for first in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == len(frames)
    for index, (clean, rain) in found.items():
        assert np.abs(clean.astype(int) - expected(frames[index])).max() <= 1
        np.testing.assert_allclose(rain, expected(frames[index]).mean(axis=2) / 255, atol=0.01)


@pytest.mark.parametrize("kind", BACKENDS)
def test_lanes_that_cannot_be(path: Path, kind: type[Backend]) -> None:
    for threads, wanted in ((2, 3), (8, 5), (2, 0)):
        with pytest.raises(UsageError, match=f"asked for {wanted} lanes on {threads} threads"):
            kind(path, read_card(path), threads, wanted)


def test_frames_meet_in_the_lanes_and_keep_their_order(path: Path) -> None:
    frames = [Frame(noise(index), index) for index in range(FRAMES)]
    out: list[Outcome] = []
    before = threading.active_count()
    with Model(Meeting(path, read_card(path), 2), "the test's choice") as model, Lanes(model, 2, attention=True) as two:
        stats = run(iter(frames), two, out.append)
        assert isinstance(two._wide, Meeting)
        assert two._wide is not model.backend
        assert two._wide.lanes == 2
    assert stats.frames == FRAMES
    assert stats.at_once == 3
    for index, outcome in enumerate(out):
        assert isinstance(outcome, Derained)
        assert outcome.frame.index == index
        assert np.abs(outcome.clean.astype(int) - expected(frames[index].pixels)).max() <= 1
        assert outcome.rain is not None
    assert threading.active_count() == before
    with pytest.raises(BackendError, match="closed"):
        two._wide.infer({}, {})


def test_an_error_in_a_lane_ends_the_run(path: Path) -> None:
    frames = (Frame(noise(index), index) for index in range(1000))
    before = threading.active_count()
    with Model(Meeting(path, read_card(path), 2), "the test's choice") as model, Lanes(model, 2) as two:

        def break_it(outcome: Outcome) -> None:
            assert isinstance(two._wide, Meeting)
            two._wide.fail = True

        with pytest.raises(BackendError, match="broken in a lane"):
            run(frames, two, break_it)
        with pytest.raises(FrameError, match="float32"):
            two.begin(Frame(np.zeros((8, 8, 3), np.float32), 0))  # type: ignore[arg-type]
    assert threading.active_count() == before


def test_large_frames_go_one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane would hold the arrays of a whole inference; so would lanes that nobody needs."""
    monkeypatch.setattr(lanes, "_MOST_PIXELS", 36 * 52 - 1)
    with derain.load(path, "onnxruntime", threads=2) as model, Lanes(model, 2) as two:
        large = [two.finish(two.begin(Frame(noise(0), 0))) for _ in range(3)]
        assert two._wide is None
        small = two.finish(two.begin(Frame(noise(1, 35), 1)))
        assert two._wide is not None
    assert all(np.abs(one.clean.astype(int) - expected(noise(0))).max() <= 1 for one in large)
    assert np.abs(small.clean.astype(int) - expected(noise(1, 35))).max() <= 1


def test_when_lanes_are_used(path: Path) -> None:
    with derain.load(path, "onnxruntime", threads=2) as model:
        assert lanes_for(model.backend, None) == 2
        assert lanes_for(model.backend, 1) == 1
        assert lanes_for(model.backend, FRAMES) == 2
        with flight_of(model, frames=3) as few, flight_of(model, frames=FRAMES) as many:
            assert few is None
            assert isinstance(many, Lanes)
    with derain.load(path, "onnxruntime", threads=1) as model, flight_of(model, frames=FRAMES) as flight:
        assert flight is None
    with derain.load(path, "openvino", threads=64) as model:
        assert lanes_for(model.backend, FRAMES) == 4


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_file_is_derained_in_lanes(tmp_path: Path, path: Path, backend: str) -> None:
    clip = make_video(tmp_path / "in.mp4", REGULAR)
    seen: list[Derained] = []
    with derain.load(path, backend, threads=2) as model:
        result = run_job(Job(clip, tmp_path / "out.mp4"), model, seen=seen.append)
    assert (result.stats.frames, result.stats.at_once) == (len(REGULAR), 3)
    assert [one.frame.index for one in seen] == list(range(len(REGULAR)))
    for one in seen:
        assert np.abs(one.clean.astype(int) - expected(one.frame.pixels)).max() <= 1
