"""The live pipeline in simulated time: ages, drops, faults and fairness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from virtual_clock import VirtualClock

from derain.errors import FrameError, MediaError, UsageError
from derain.runtime.live.run import LiveRun
from derain.runtime.live.stream import Policy, Reconnect, SinkAwayError, StreamReport, StreamSpec
from derain.runtime.media.items import Frame, Item, Passenger
from derain.runtime.pipeline import Derained

PIXELS = np.zeros((2, 2, 3), np.uint8)
FRAME_TIME = 1 / 30


class Camera:
    """Frames at a steady rate in simulated time; ``fault(index)`` may raise or sleep."""

    frame_count: int | None = None
    damaged = 0

    def __init__(
        self, clock: VirtualClock, frames: int, fault: Callable[[int], Any] | None = None, rate: float = 30
    ) -> None:
        self.warnings: list[str] = []
        self._clock, self._frames, self._fault, self._rate = clock, frames, fault, rate
        self.left = False

    def __enter__(self) -> Camera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left = True

    def __iter__(self) -> Iterator[Item]:
        for index in range(self._frames):
            self._clock.sleep(1 / self._rate)
            if self._fault is not None:
                self._fault(index)
            yield Frame(PIXELS, index)
            yield Passenger(None)


def slow(clock: VirtualClock, seconds: float) -> Callable[[Frame], Derained]:
    def infer(frame: Frame) -> Derained:
        clock.sleep(seconds)
        return Derained(frame, frame.pixels)

    return infer


def finished(clock: VirtualClock, *specs: StreamSpec) -> list[StreamReport]:
    run = LiveRun(specs, clock)
    run.start()
    assert run.wait(100_000)
    return run.reports()


def test_ten_minutes_with_a_model_that_is_too_slow() -> None:
    clock = VirtualClock()
    inference = 0.1
    indices: list[int] = []
    spec = StreamSpec(
        "camera",
        lambda: Camera(clock, 10 * 60 * 30),
        slow(clock, inference),
        lambda derained, _: indices.append(derained.frame.index),
        reconnect=None,
    )
    (report,) = finished(clock, spec)
    assert clock.now() >= 600
    assert report.captured == 18_000
    assert report.age_p99 < 2 * FRAME_TIME + inference
    assert report.age_max < 2 * FRAME_TIME + inference
    assert 5_900 <= report.delivered <= 6_010
    assert report.dropped == {"overtaken": report.captured - report.delivered}
    assert indices == sorted(indices)
    assert report.state == "ended"


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest", "block"])
def test_policies(policy: Policy) -> None:
    clock = VirtualClock()
    indices: list[int] = []
    spec = StreamSpec(
        "s",
        lambda: Camera(clock, 300),
        slow(clock, 0.1),
        lambda derained, _: indices.append(derained.frame.index),
        policy=policy,
        reconnect=None,
    )
    (report,) = finished(clock, spec)
    cause = {"drop-oldest": "overtaken", "drop-newest": "busy"}.get(policy)
    assert sum(report.dropped.values()) + report.delivered == report.captured == 300
    if cause is None:
        assert indices == list(range(300))
        assert report.dropped == {}
    else:
        assert set(report.dropped) == {cause}
        assert 95 <= report.delivered <= 105


def test_several_streams_share_the_model_fairly() -> None:
    clock = VirtualClock()
    specs = [
        StreamSpec(name, lambda rate=rate: Camera(clock, 20 * rate, rate=rate), slow(clock, 0.05), reconnect=None)  # type: ignore[misc]
        for name, rate in (("a", 30), ("b", 30), ("c", 120))
    ]
    reports = finished(clock, *specs)
    delivered = [report.delivered for report in reports]
    assert max(delivered) - min(delivered) <= 3
    assert sum(delivered) >= 0.97 * 20 / 0.05
    # A stream waits for the other two, one inference each, and for its own.
    assert max(report.age_p99 for report in reports) < 3 * 0.05 + 2 * FRAME_TIME


def test_a_slow_sink_delays_its_own_stream_only() -> None:
    clock = VirtualClock()
    fast = StreamSpec("fast", lambda: Camera(clock, 600), slow(clock, 0.01), reconnect=None)
    lazy = StreamSpec(
        "lazy", lambda: Camera(clock, 600), slow(clock, 0.01), lambda *_: clock.sleep(0.5), reconnect=None
    )
    quick, held = finished(clock, fast, lazy)
    assert quick.delivered == 600
    assert held.delivered < 60
    assert held.age_max <= 0.01 + 2 * 0.5 + 2 * FRAME_TIME


def test_a_lost_source_is_opened_again_with_growing_pauses() -> None:
    clock = VirtualClock()
    openings: list[float] = []

    def camera() -> Camera:
        openings.append(clock.now())
        if 2 <= len(openings) <= 5:
            raise MediaError("The server does not answer")
        if len(openings) == 7:
            raise UsageError("over")  # ends the test
        return Camera(clock, 300)

    indices: list[int] = []
    spec = StreamSpec(
        "s", camera, slow(clock, 0), lambda d, _: indices.append(d.frame.index), reconnect=Reconnect(first=0.5, most=3)
    )
    (report,) = finished(clock, spec)
    pauses = np.diff(openings)
    np.testing.assert_allclose(pauses[1:5], [1, 2, 3, 3], atol=0.01)
    assert pauses[0] == pytest.approx(10.5, abs=0.01)
    assert pauses[5] == pytest.approx(10.5, abs=0.01), "ten steady seconds forget the failures"
    assert (report.state, report.reason) == ("failed", "over.")
    assert report.reconnections == 6
    assert indices == list(range(600)), "numbers go on across a reconnection"


def test_a_source_that_never_worked_ends_with_its_reason() -> None:
    clock = VirtualClock()

    def camera() -> Camera:
        raise MediaError("No route to host")

    good = StreamSpec("good", lambda: Camera(clock, 900), slow(clock, 0), reconnect=None)
    bad, fine = finished(clock, StreamSpec("bad", camera, slow(clock, 0)), good)
    assert (bad.state, bad.captured) == ("failed", 0)
    assert bad.reason == "No route to host. (4 attempts)"
    assert fine.delivered == 900


def test_a_stalled_source_is_given_up_and_leaves_when_it_wakes() -> None:
    clock = VirtualClock()
    cameras: list[Camera] = []

    def stall(index: int) -> None:
        if index == 30:
            clock.sleep(60)

    def camera() -> Camera:
        if len(cameras) == 2:
            raise UsageError("over")
        cameras.append(Camera(clock, 2700, stall if not cameras else None))
        return cameras[-1]

    delivered: list[float] = []
    spec = StreamSpec("s", camera, slow(clock, 0), lambda *_: delivered.append(clock.now()), reconnect=Reconnect())
    (report,) = finished(clock, spec)
    assert report.reconnections == 2
    gaps = np.diff(delivered)
    assert np.sum(gaps > 1) == 1
    assert gaps.max() < 5 + 0.5 + 0.3 + 0.1, "stall, back-off, watch interval"
    assert len(delivered) == 30 + 2700
    clock.sleep(70)
    assert cameras[0].left, "the abandoned reader closes its source"


def test_refused_frames_are_dropped_and_too_many_end_the_stream() -> None:
    clock = VirtualClock()

    def picky(frame: Frame) -> Derained:
        if frame.index % 3 == 0 or frame.index > 100:
            raise FrameError("The frame has 2 x 2 pixels")
        return Derained(frame, frame.pixels)

    (report,) = finished(clock, StreamSpec("s", lambda: Camera(clock, 300), picky, reconnect=None))
    assert report.state == "failed"
    assert "2 x 2" in report.reason
    assert report.delivered == sum(1 for index in range(101) if index % 3)
    assert report.dropped["refused"] == 34 + 10 - (100 % 3 == 0)


def test_a_dead_sink_ends_its_stream_and_keeps_what_was_written() -> None:
    clock = VirtualClock()
    kept: list[str] = []
    written: list[int] = []

    def full(derained: Derained, seconds: float) -> None:
        if derained.frame.index == 20:
            raise OSError(28, "No space left on device")
        written.append(derained.frame.index)

    bad = StreamSpec("bad", lambda: Camera(clock, 300), slow(clock, 0), full, lambda: kept.append("bad"))
    good = StreamSpec("good", lambda: Camera(clock, 300), slow(clock, 0), reconnect=None)
    failed, fine = finished(clock, bad, good)
    assert failed.state == "failed"
    assert "No space left" in failed.reason
    assert kept == ["bad"]
    assert written == list(range(20))
    assert fine.delivered == 300


def test_a_sink_that_is_away_for_a_while_costs_frames_only() -> None:
    clock = VirtualClock()
    times: list[float] = []

    def deliver(derained: Derained, seconds: float) -> None:
        if 10 <= derained.frame.index < 25:
            raise SinkAwayError("The server is gone")
        times.append(seconds)

    (report,) = finished(clock, StreamSpec("s", lambda: Camera(clock, 90), slow(clock, 0), deliver, reconnect=None))
    assert (report.state, report.delivered, report.dropped) == ("ended", 75, {"sink": 15})
    np.testing.assert_allclose(times[:10], FRAME_TIME * np.arange(1, 11), atol=1e-6)


class Recording(Camera):
    """A camera that has an end, such as a file on a web server."""

    finite = True


def test_a_source_that_has_an_end_waits_and_is_not_opened_again() -> None:
    clock = VirtualClock()
    opened: list[float] = []

    def recording() -> Recording:
        opened.append(clock.now())
        return Recording(clock, 60)

    whole, newest = finished(
        clock,
        StreamSpec("whole", recording, slow(clock, 0.1)),
        StreamSpec("newest", lambda: Recording(clock, 60), slow(clock, 0.1), policy="drop-oldest"),
    )
    assert (whole.state, whole.delivered, whole.dropped, len(opened)) == ("ended", 60, {}, 1)
    assert newest.delivered < 60, "dropping was asked for"


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_source_that_has_an_end_and_breaks_off_does_not_begin_anew(seconds: float) -> None:
    clock = VirtualClock()

    def fault(index: int) -> None:
        if index == 30:
            clock.sleep(seconds)
            if not seconds:
                raise MediaError("Connection reset by peer")

    (report,) = finished(clock, StreamSpec("s", lambda: Recording(clock, 60, fault), slow(clock, 0)))
    assert (report.state, report.delivered, report.reconnections) == ("failed", 30, 0)
    assert report.reason == ("no frame for 5 s" if seconds else "Connection reset by peer.")


def test_once_ends_with_the_source_but_not_with_its_failure() -> None:
    clock = VirtualClock()
    opened: list[float] = []

    def camera() -> Camera:
        opened.append(clock.now())
        if len(opened) == 1:
            raise MediaError("The server does not answer")
        return Camera(clock, 30)

    (report,) = finished(clock, StreamSpec("s", camera, slow(clock, 0), reconnect=Reconnect(after_end=False)))
    assert (report.state, report.delivered, len(opened)) == ("ended", 30, 2)
    assert report.reason == "The server does not answer."


def test_frames_of_a_file_that_a_sink_did_not_take_are_a_failure() -> None:
    clock = VirtualClock()

    def away(derained: Derained, seconds: float) -> None:
        if derained.frame.index >= 20:
            raise SinkAwayError("The server is gone")

    spec = StreamSpec("s", lambda: Camera(clock, 30), slow(clock, 0), away, policy="block", reconnect=None)
    (report,) = finished(clock, spec)
    assert (report.state, report.delivered) == ("failed", 20)
    assert report.reason == "10 frames were not delivered: The server is gone"


def test_stop_drains_what_is_under_way() -> None:
    clock = VirtualClock()
    done: list[int] = []
    closed: list[bool] = []
    spec = StreamSpec(
        "s",
        lambda: Camera(clock, 10**9),
        slow(clock, 0.1),
        lambda derained, _: done.append(derained.frame.index),
        lambda: closed.append(True),
        policy="block",
    )
    run = LiveRun([spec], clock)
    run.start()
    clock.sleep(2.05)
    run.stop()
    assert run.wait(5)
    (report,) = run.reports()
    assert closed == [True]
    assert (report.state, report.reason) == ("ended", "stopped")
    assert report.delivered == len(done) == report.captured - report.dropped.get("stopped", 0)
    assert done == list(range(len(done)))
    clock.sleep(1)
    assert run.reports()[0].captured == report.captured


def test_stop_leaves_a_hanging_sink_behind() -> None:
    clock = VirtualClock()
    spec = StreamSpec("s", lambda: Camera(clock, 10**9), slow(clock, 0), lambda *_: clock.sleep(10_000))
    run = LiveRun([spec], clock, drain=3)
    run.start()
    clock.sleep(1)
    run.stop()
    assert run.wait(5)
    assert run.reports()[0].state == "failed"
    assert "hung" in run.reports()[0].reason


def test_names_must_differ() -> None:
    clock = VirtualClock()
    spec = StreamSpec("s", lambda: Camera(clock, 1), slow(clock, 0))
    for specs in ([], [spec, spec]):
        with pytest.raises(UsageError, match="streams are named"):
            LiveRun(specs, clock)
    with pytest.raises(UsageError, match="no stream 'x'"):
        LiveRun([spec], clock).latest("x")
