"""The order of a measurement, and when it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from derain.runtime.bench.sequence import SETTLE_SECONDS, interleave, time_is_up, warm_up


def recorded(calls: list[str], name: str) -> Callable[[], int]:
    def action() -> int:
        calls.append(name)
        return calls.count(name)

    return action


def order(seed: int) -> list[str]:
    calls: list[str] = []
    interleave([recorded(calls, name) for name in "abc"], 50, seed, rest=lambda _: None)
    return calls


def test_each_takes_its_turn_in_every_round() -> None:
    calls = order(1)
    rounds = [calls[start : start + 3] for start in range(0, 150, 3)]
    assert all(sorted(round_) == ["a", "b", "c"] for round_ in rounds)
    firsts = Counter(round_[0] for round_ in rounds)
    assert min(firsts[name] for name in "abc") >= 8
    assert order(1) == calls
    assert order(2) != calls


def test_results_stay_with_their_action_in_the_order_of_the_rounds() -> None:
    calls: list[str] = []
    rests: list[float] = []
    done: list[None] = []
    actions = [recorded(calls, name) for name in "ab"]
    results = interleave(actions, 5, 0, rest=rests.append, advance=lambda: done.append(None))
    assert results == [[1, 2, 3, 4, 5]] * 2
    assert rests == [SETTLE_SECONDS] * 10
    assert len(done) == 10


def test_it_ends_after_the_round_in_which_there_is_enough() -> None:
    calls: list[str] = []
    clock = iter([10.0, 11.0, 12.5, 13.0, 99.0])
    actions = [recorded(calls, name) for name in "ab"]
    results = interleave(actions, 100, 0, rest=lambda _: None, enough=time_is_up(3.0, lambda: next(clock)))
    assert results == [[1, 2, 3]] * 2
    assert not time_is_up(None)()


def test_one_alone_does_not_rest() -> None:
    calls: list[str] = []
    rests: list[float] = []
    interleave([recorded(calls, "a")], 3, 0, rest=rests.append)
    assert rests == []


@pytest.mark.parametrize(
    ("durations", "least", "frames", "stable"),
    [
        ([9.0] * 3 + [1.0] * 97, 10, 11, True),  # three slow ones no longer decide the older median
        ([1.0] * 100, 20, 20, True),
        ([1.0] * 100, 2, 10, True),  # two windows are needed to tell
        ([2.0**n for n in range(100)], 4, 20, False),
        ([1.0] * 100, 0, 0, False),
    ],
)
def test_warm_up_goes_on_until_times_are_steady(durations: list[float], least: int, frames: int, stable: bool) -> None:
    left = iter(durations)
    found = warm_up(lambda: next(left), least)
    assert (found.frames, found.stable) == (frames, stable)
