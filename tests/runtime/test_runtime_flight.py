"""Several frames of one model under way at once: order, slots, errors, and the same pictures as one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import REGULAR, make_video
from fake_cuda import FakeCuda
from fake_engine import FakeEngine
from standin import card_of, save_model

import derain
from derain.errors import BackendError, FrameError
from derain.runtime.backends.base import Backend, Buffers
from derain.runtime.backends.device_runner import DeviceRunner, Ticket
from derain.runtime.flight import Flight, flight_of
from derain.runtime.job import Job, run_job
from derain.runtime.media.items import Frame, Item, Passenger
from derain.runtime.model import Model
from derain.runtime.pipeline import Derained, Outcome, run

PIXELS = np.zeros((2, 2, 3), np.uint8)


class FakeDevice(Backend):
    """The runner of TensorRT's backends on the fake device, which finds a missing wait or a slot used twice."""

    name = "fake-device"
    package = "numpy"
    extra = "none"

    @property
    def device(self) -> str:
        return "a fake GPU"

    def _open_impl(self) -> None:
        self.cuda = FakeCuda()
        self.engine = FakeEngine(self.cuda, largest=(1, 64, 96))
        self.runner = DeviceRunner(self.cuda, self.engine)

    def _close_impl(self) -> None:
        self.runner.close()
        self.engine.close()

    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        raise AssertionError("one by one, although frames can overlap")

    def submit(self, inputs: Buffers) -> Ticket:
        return self.runner.submit(inputs)

    def collect(self, ticket: Ticket, outputs: Buffers) -> None:
        self.runner.collect(ticket, outputs)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[FakeDevice]:
    backend = FakeDevice(save_model(tmp_path / "standin.onnx"), card_of(), 1)
    yield backend
    backend.close()
    backend.cuda.require_clean()


class Courier:
    """Frames under way, with what a device would see of them."""

    slots = 3

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.finished: list[int] = []
        self.most = 0
        self.abandoned = False
        self.two_behind = threading.Event()

    def begin(self, frame: Frame) -> Frame:
        self.begun.append(frame.index)
        self.most = max(self.most, len(self.begun) - len(self.finished))
        if len(self.begun) == 3:
            self.two_behind.set()
        return frame

    def finish(self, begun: Frame) -> Derained:
        # The first result is held back until two more frames have begun: one by one would wait for ever.
        assert self.two_behind.wait(20)
        self.finished.append(begun.index)
        return Derained(begun, begun.pixels)

    def abandon(self) -> None:
        self.abandoned = True


def items(count: int) -> Iterator[Item]:
    for index in range(count):
        yield Frame(PIXELS, index)
        for packet in range(5):
            yield Passenger((index, packet))


def test_frames_overlap_in_order_and_not_beyond_the_slots() -> None:
    courier, out = Courier(), []

    def deliver(outcome: Outcome) -> None:
        out.append(outcome.frame.index if isinstance(outcome, Derained) else outcome.packet)

    stats = run(items(40), courier, deliver)
    assert out == [entry for index in range(40) for entry in (index, *((index, packet) for packet in range(5)))]
    assert courier.begun == courier.finished == list(range(40))
    assert courier.most == courier.slots
    assert courier.abandoned
    assert stats.frames == 40
    assert stats.stages["infer"].median > 0


@pytest.mark.parametrize("where", ["begin", "finish", "deliver"])
def test_an_error_ends_the_run_once(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    courier = Courier()
    courier.two_behind.set()

    def fail(*arguments: object) -> None:
        raise BackendError(f"broken in {where}")

    if where != "deliver":
        monkeypatch.setattr(courier, where, fail)
    before = threading.active_count()
    with pytest.raises(BackendError, match=f"broken in {where}"):
        run(items(1000), courier, fail if where == "deliver" else lambda outcome: None)
    assert courier.abandoned
    assert threading.active_count() == before


def test_a_video_through_the_fake_device(tmp_path: Path, device: FakeDevice) -> None:
    clip = make_video(tmp_path / "in.mp4", REGULAR[:12])
    seen: list[Derained] = []
    with Model(device, "the test's choice") as model:
        job = Job(clip, tmp_path / "out.mp4", attention=True)
        result = run_job(job, model, seen=seen.append)
        assert device.runner.free_slots == 3
    assert result.stats.frames == 12
    assert [derained.frame.index for derained in seen] == list(range(12))
    for derained in seen:
        np.testing.assert_array_equal(derained.clean, 255 - derained.frame.pixels)
        assert derained.rain is not None
        np.testing.assert_allclose(derained.rain, derained.clean.mean(-1) / 255, rtol=1e-5)


def test_an_aborted_run_gives_its_slots_back(tmp_path: Path, device: FakeDevice) -> None:
    frames = [Frame(np.full((16, 16, 3), index, np.uint8), index) for index in range(20)]

    def full(outcome: Outcome) -> None:
        raise OSError("No space left on device")

    with Model(device, "the test's choice") as model, flight_of(model) as flight:
        assert flight is not None
        with pytest.raises(OSError, match="No space"):
            run(iter(frames), flight, full)
        assert device.runner.free_slots == 3
        out: list[Outcome] = []
        assert run(iter(frames), flight, out.append).frames == 20


def test_sizes_change_and_bad_frames_are_told(device: FakeDevice) -> None:
    with Model(device, "the test's choice") as model:
        flight = Flight(model, device)
        small = flight.begin(Frame(np.full((8, 8, 3), 1, np.uint8), 0))
        large = flight.begin(Frame(np.full((32, 48, 3), 2, np.uint8), 1))
        assert (flight.finish(small).clean == 254).all()
        assert flight.finish(large).clean.shape == (32, 48, 3)
        with pytest.raises(FrameError, match="float32"):
            flight.begin(Frame(np.zeros((8, 8, 3), np.float32), 2))  # type: ignore[arg-type]
        with pytest.raises(BackendError, match="not in the profile"):
            flight.begin(Frame(np.zeros((80, 8, 3), np.uint8), 3))
        assert device.runner.free_slots == 3


def test_a_backend_that_runs_one_at_a_time_has_no_flight(tmp_path: Path) -> None:
    path = save_model(tmp_path / "standin.onnx")
    with derain.load(path, "onnxruntime", threads=1) as model, flight_of(model) as flight:
        assert flight is None
