"""The runner against the honest fake device: order, overlap, lifetimes, graphs, failures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda import DeviceFaultError, FakeCuda
from fake_engine import FakeEngine, negative
from numpy.typing import NDArray

from derain.errors import BackendError, UsageError
from derain.runtime.backends.cuda_api import CudaError
from derain.runtime.backends.device_runner import DeviceRunner, Ticket


def frame(seed: int, height: int = 8, width: int = 12) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)


def room(like: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"derained": np.zeros(like.shape, np.uint8), "attention": np.zeros(like.shape[:3], np.float32)}


def check(found: dict[str, NDArray[Any]], source: NDArray[Any]) -> None:
    for name, wanted in negative(source).items():
        np.testing.assert_array_equal(found[name], wanted, err_msg=name)


@pytest.fixture(params=[False, True], ids=["discrete", "integrated"])
def cuda(request: pytest.FixtureRequest) -> FakeCuda:
    return FakeCuda(integrated=request.param)


def test_frames_in_flight_come_back_each_with_its_own_result(cuda: FakeCuda) -> None:
    engine = FakeEngine(cuda)
    runner = DeviceRunner(cuda, engine)
    frames = [frame(seed) for seed in range(9)]
    flying: list[tuple[Ticket, int]] = []
    done = 0
    for index, picture in enumerate(frames):
        mine = picture.copy()
        flying.append((runner.submit({"frame": mine}), index))
        mine[:] = 0  # the caller may reuse its array at once
        if len(flying) == 3:
            ticket, which = flying.pop(0)
            out = room(picture)
            runner.collect(ticket, out)
            check(out, frames[which])
            done += 1
    for ticket, which in reversed(flying):  # in any order
        out = room(frames[which])
        runner.collect(ticket, out)
        check(out, frames[which])
    runner.close()
    engine.close()
    cuda.require_clean()
    assert done == 7


def test_collecting_one_frame_does_not_wait_for_the_next() -> None:
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    first, second = runner.submit({"frame": frame(1)}), runner.submit({"frame": frame(2)})
    runner.collect(first, room(frame(1)))
    # The fake runs only what is waited for: had the frames shared one stream of copies out, both would be done.
    assert cuda.executed == ["copy_in", "compute", "copy_out", "copy_out"]
    runner.collect(second, room(frame(2)))


def test_nothing_is_allocated_and_nothing_waited_for_in_the_steady_state(cuda: FakeCuda) -> None:
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    for seed in range(6):
        runner.infer({"frame": frame(seed)}, room(frame(seed)))
    cuda.calls.clear()
    ticket = runner.submit({"frame": frame(9)})
    assert not [call for call in cuda.calls if "alloc" in call or "create" in call or "synchronize" in call]
    runner.collect(ticket, room(frame(9)))
    assert cuda.calls.count("synchronize_event") == 1
    assert cuda.calls.count("launch_graph") == 1


def test_a_frame_in_steps_is_the_same_and_each_step_is_over_before_the_next(cuda: FakeCuda) -> None:
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    for seed in range(4):  # the later ones by a graph
        out = room(frame(seed))
        steps = runner.infer_in_steps({"frame": frame(seed)}, out)
        check(out, frame(seed))
        assert len(steps) == 3
        assert min(steps) >= 0
    cuda.calls.clear()
    runner.infer_in_steps({"frame": frame(9)}, room(frame(9)))
    order = [call for call in cuda.calls if call in ("copy_in", "launch_graph", "copy_out", "synchronize")]
    copied = [] if cuda.integrated else ["copy_in"]
    returned = [] if cuda.integrated else ["copy_out", "copy_out"]
    assert order == [*copied, "synchronize", "launch_graph", "synchronize", *returned, "synchronize"]
    ticket = runner.submit({"frame": frame(1)})
    with pytest.raises(BackendError, match="A frame is in flight"):
        runner.infer_in_steps({"frame": frame(2)}, room(frame(2)))
    out = room(frame(1))
    runner.collect(ticket, out)
    check(out, frame(1))


def test_memory_that_cpu_and_gpu_share_is_not_copied() -> None:
    cuda = FakeCuda(integrated=True)
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    out = room(frame(3))
    runner.infer({"frame": frame(3)}, out)
    check(out, frame(3))
    assert cuda.copies == 0


def test_graphs_are_captured_once_a_slot_and_again_when_the_shape_changes() -> None:
    cuda = FakeCuda()
    engine = FakeEngine(cuda)
    runner = DeviceRunner(cuda, engine, slots=2)

    def run(count: int, **size: int) -> None:
        for seed in range(count):
            tickets = [(runner.submit({"frame": frame(s, **size)}), s) for s in (seed, seed + 100)]
            for ticket, s in tickets:
                out = room(frame(s, **size))
                runner.collect(ticket, out)
                check(out, frame(s, **size))

    run(4)
    assert cuda.calls.count("begin_capture") == 2
    run(3, height=16)
    run(3, height=4)
    run(3)
    assert cuda.calls.count("begin_capture") == 8
    runner.close()
    engine.close()
    cuda.require_clean()


def test_smaller_frames_use_the_memory_of_larger_ones(cuda: FakeCuda) -> None:
    runner = DeviceRunner(cuda, FakeEngine(cuda), slots=1)
    runner.infer({"frame": frame(1, 64, 64)}, room(frame(1, 64, 64)))
    cuda.calls.clear()
    out = room(frame(2, 4, 4))
    runner.infer({"frame": frame(2, 4, 4)}, out)
    check(out, frame(2, 4, 4))
    assert not [call for call in cuda.calls if "allocate" in call]


def test_page_locked_memory_of_the_application_is_copied_from_directly() -> None:
    """The fake device copies as late as it may: what the array holds at the end is what was derained."""
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    array = frame(1)
    ticket = runner.submit({"frame": array}, pinned=True)
    array[:] = frame(2)
    out = room(array)
    runner.collect(ticket, out)
    check(out, frame(2))


def test_without_graphs(cuda: FakeCuda) -> None:
    runner = DeviceRunner(cuda, FakeEngine(cuda), graphs=False)
    for seed in range(4):
        out = room(frame(seed))
        runner.infer({"frame": frame(seed)}, out)
        check(out, frame(seed))
    assert "begin_capture" not in cuda.calls


def test_an_engine_that_no_graph_can_hold_runs_without_one(cuda: FakeCuda) -> None:
    runner = DeviceRunner(cuda, FakeEngine(cuda, capturable=False))
    for seed in range(4):
        out = room(frame(seed))
        runner.infer({"frame": frame(seed)}, out)
        check(out, frame(seed))
    assert "begin_capture" not in cuda.calls


# ---- the fake device catches what a real one would answer with wrong pictures --------------------------------------


@pytest.mark.parametrize("dropped", range(2))
def test_a_missing_wait_is_a_race(monkeypatch: pytest.MonkeyPatch, dropped: int) -> None:
    """Compute must wait for the copy in, the copy out for compute: without either the fake device objects."""
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    real, count = cuda.wait, iter(range(99))
    monkeypatch.setattr(cuda, "wait", lambda stream, event: real(stream, event) if next(count) != dropped else None)
    with pytest.raises(DeviceFaultError, match="race"):
        runner.submit({"frame": frame(1)})


def test_reading_before_the_result_is_there_gives_old_bytes(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> None:
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    monkeypatch.setattr(cuda, "synchronize_event", lambda event: None)
    out = room(frame(1))
    runner.infer({"frame": frame(1)}, out)
    with pytest.raises(AssertionError):
        check(out, frame(1))


def test_a_slot_given_out_too_early_is_noticed() -> None:
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda), slots=1)
    runner.submit({"frame": frame(1)})
    runner._slots[0].busy = False
    with pytest.raises(DeviceFaultError, match="race"):
        runner.submit({"frame": frame(2)})


def test_freeing_memory_in_use_is_noticed() -> None:
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    runner.submit({"frame": frame(1)})
    with cuda.current(), pytest.raises(DeviceFaultError, match="freed while"):
        runner._slots[0].release()


def test_a_leak_is_noticed() -> None:
    cuda = FakeCuda()
    DeviceRunner(cuda, FakeEngine(cuda))
    with pytest.raises(DeviceFaultError, match=r"leaked: .*stream"):
        cuda.require_clean()


def test_frames_of_two_sizes_in_flight(cuda: FakeCuda) -> None:
    """The context changes its shape only when it is idle, and no graph of the earlier shape is replayed."""
    engine = FakeEngine(cuda)
    runner = DeviceRunner(cuda, engine, slots=2)
    small, large = frame(1), frame(2, 16, 16)
    for _ in range(2):
        runner.infer({"frame": small}, room(small))  # the first slot has its graph now
    for _ in range(3):
        tickets = [(runner.submit({"frame": picture}), picture) for picture in (small, large)]
        for ticket, picture in tickets:
            out = room(picture)
            runner.collect(ticket, out)
            check(out, picture)
    for _ in range(3):
        runner.infer({"frame": small}, room(small))  # captured anew; the old graph must be given back
    runner.close()
    engine.close()
    cuda.require_clean()


# ---- failures ------------------------------------------------------------------------------------------------------

STEPS = ("create_stream", "create_event", "allocate", "allocate_host", "copy_in", "copy_out", "record", "wait")


@pytest.mark.parametrize("call", STEPS)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_any_call_that_fails_leaves_nothing_behind(call: str, nth: int) -> None:
    cuda = FakeCuda()
    engine = FakeEngine(cuda)
    cuda.fail(call, "cudaErrorInvalidValue", nth)
    runner = None
    outcome = []
    try:
        runner = DeviceRunner(cuda, engine)
        for seed in range(4):
            runner.infer({"frame": frame(seed)}, room(frame(seed)))
    except CudaError as error:
        outcome.append(error.code)
    assert outcome == ["cudaErrorInvalidValue"]
    if runner is not None:
        assert runner.free_slots == 3
        out = room(frame(7))
        runner.infer({"frame": frame(7)}, out)  # it goes on
        check(out, frame(7))
        runner.close()
    engine.close()
    cuda.require_clean()


def test_out_of_memory_says_how_much_is_missing_and_a_smaller_frame_still_works() -> None:
    cuda = FakeCuda(memory=60_000)
    engine = FakeEngine(cuda, largest=(1, 512, 512))
    runner = DeviceRunner(cuda, engine, slots=1)
    big = frame(1, 400, 400)
    with pytest.raises(BackendError, match=r"not enough memory: a frame in flight needs 1 MiB.*--max"):
        runner.submit({"frame": big})
    out = room(frame(2))
    runner.infer({"frame": frame(2)}, out)
    check(out, frame(2))
    runner.close()
    cuda.require_clean()


def test_a_lost_gpu_is_said_once_clearly_and_ever_after() -> None:
    cuda = FakeCuda()
    runner = DeviceRunner(cuda, FakeEngine(cuda))
    cuda.fail("synchronize_event", "cudaErrorIllegalAddress")
    ticket = runner.submit({"frame": frame(1)})
    with pytest.raises(CudaError, match=r"cudaErrorIllegalAddress.*lost to this process.*Xid"):
        runner.collect(ticket, room(frame(1)))
    with pytest.raises(BackendError, match="The GPU was lost earlier"):
        runner.submit({"frame": frame(1)})
    runner.close()  # does not raise again
    runner.close()


def test_misuse_is_said() -> None:
    cuda = FakeCuda()
    with pytest.raises(UsageError, match="slots is 0"):
        DeviceRunner(cuda, FakeEngine(cuda), slots=0)
    runner = DeviceRunner(cuda, FakeEngine(cuda), slots=1)
    ticket = runner.submit({"frame": frame(1)})
    with pytest.raises(BackendError, match="All 1 slots are taken"):
        runner.submit({"frame": frame(2)})
    with pytest.raises(BackendError, match=r"'derained' is uint8 \(1, 4, 4, 3\)"):
        runner.collect(ticket, room(frame(1, 4, 4)))
    with pytest.raises(BackendError, match="collected before"):
        runner.collect(ticket, room(frame(1)))
    with pytest.raises(BackendError, match="not in the profile"):
        runner.submit({"frame": frame(1, 2, 2)})
    out = room(frame(3))
    runner.infer({"frame": frame(3)}, out)
    check(out, frame(3))
    runner.close()
    with pytest.raises(BackendError, match="closed"):
        runner.submit({"frame": frame(1)})
