from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from derain.runtime.channel import AbortedError, Channel
from derain.runtime.media.items import Frame, Item, Passenger
from derain.runtime.pipeline import Derained, Outcome, run

PIXELS = np.zeros((2, 2, 3), np.uint8)


def items(count: int) -> Iterator[Item]:
    for index in range(count):
        yield Frame(PIXELS, index)
        yield Passenger(("sound", index))


def same(frame: Frame) -> Derained:
    return Derained(frame, frame.pixels)


def label(outcome: Outcome) -> object:
    return outcome.frame.index if isinstance(outcome, Derained) else outcome.packet


def test_order_is_kept_and_all_is_counted() -> None:
    out: list[object] = []
    seen: list[int] = []
    stats = run(items(50), same, lambda outcome: out.append(label(outcome)), progress=seen.append)
    assert out == [entry for i in range(50) for entry in (i, ("sound", i))]
    assert stats.frames == 50 == seen[-1]
    assert not stats.stopped
    assert set(stats.stages) == {"decode", "infer", "encode"}
    assert all(0 <= stage.median <= stage.p99 <= stage.total for stage in stats.stages.values())


def test_stages_overlap() -> None:
    """Decode, infer and encode of three different frames wait for each other: alone none could go on."""
    meeting = threading.Barrier(3, timeout=20)

    def source() -> Iterator[Item]:
        for index in range(6):
            if index in (2, 3):
                meeting.wait()
            yield Frame(PIXELS, index)

    def infer(frame: Frame) -> Derained:
        if frame.index in (1, 2):
            meeting.wait()
        return same(frame)

    def deliver(outcome: Outcome) -> None:
        if label(outcome) in (0, 1):
            meeting.wait()

    assert run(source(), infer, deliver).frames == 6


def test_memory_is_bounded() -> None:
    read = 0
    most = 0

    def source() -> Iterator[Item]:
        nonlocal read
        for index in range(60):
            read += 1
            yield Frame(PIXELS, index)

    def deliver(outcome: Outcome) -> None:
        nonlocal most
        assert isinstance(outcome, Derained)
        threading.Event().wait(0.002)
        most = max(most, read - outcome.frame.index)

    run(source(), same, deliver)
    assert most <= 9  # two waiting in each of two channels, one in each stage, and those just being handed over


@pytest.mark.parametrize("stage", ["source", "infer", "deliver"])
def test_an_error_surfaces_once_and_stops_all(stage: str) -> None:
    threads_before = threading.active_count()
    delivered = 0

    def fail(where: str, index: int) -> None:
        if where == stage and index == 7:
            raise ValueError(f"broken in {where}")

    def source() -> Iterator[Item]:
        for index in range(10_000):
            fail("source", index)
            yield Frame(PIXELS, index)

    def infer(frame: Frame) -> Derained:
        fail("infer", frame.index)
        return same(frame)

    def deliver(outcome: Outcome) -> None:
        nonlocal delivered
        delivered += 1
        assert isinstance(outcome, Derained)
        fail("deliver", outcome.frame.index)

    with pytest.raises(ValueError, match=f"broken in {stage}"):
        run(source(), infer, deliver)
    assert delivered <= 8
    assert threading.active_count() == threads_before


def test_stop_finishes_what_was_read() -> None:
    stop = threading.Event()
    read: list[int] = []
    done: list[object] = []

    def source() -> Iterator[Item]:
        for index in range(10_000):
            read.append(index)
            yield Frame(PIXELS, index)

    def deliver(outcome: Outcome) -> None:
        done.append(label(outcome))
        if len(done) == 5:
            stop.set()

    stats = run(source(), same, deliver, stop=stop)
    assert stats.stopped
    assert done == read
    assert 5 <= len(done) <= 15


def test_stop_before_the_first_frame() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        run(items(3), same, lambda outcome: None, stop=stop)


def test_an_interrupt_in_the_waiting_thread_stops_the_others() -> None:
    def progress(done: int) -> None:
        raise KeyboardInterrupt

    def endless() -> Iterator[Item]:
        index = 0
        while True:
            yield Frame(PIXELS, index)
            index += 1

    with pytest.raises(KeyboardInterrupt):
        run(endless(), same, lambda outcome: None, progress=progress)


def test_channel_ends() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.close()
    assert list(channel) == [1]
    channel.abort()
    with pytest.raises(AbortedError):
        channel.put(2)
    with pytest.raises(AbortedError):
        next(iter(channel))
