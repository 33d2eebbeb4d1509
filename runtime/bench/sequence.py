"""The order of a measurement: everything that is compared takes its turn in every round, in an order drawn anew.

A machine's clock, temperature and other programs drift over minutes. Measured one after the other, two models would get
different machines; interleaved, they share every moment of the same one.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
WARM_WINDOW = 5
_WARM_CLOSE = 0.05
_WARM_MOST = 5  # times the least
# An engine's threads look for more work for a while before they sleep, and would take the next one's time.
SETTLE_SECONDS = 0.02


@dataclass(frozen=True)
class WarmUp:
    """``stable``: the last medians agreed within 5 %; else the limit of frames ended it."""

    frames: int
    stable: bool


def interleave(
    actions: Sequence[Callable[[], T]],
    rounds: int,
    seed: int,
    *,
    rest: Callable[[float], None] = time.sleep,
    advance: Callable[[], None] = lambda: None,
    enough: Callable[[], bool] = lambda: False,
) -> list[list[T]]:
    """Call every action once in each round, in a seeded random order.

    Args:
        rest: waits before each action where there are several; called with seconds.
        advance: called after each action.
        enough: asked after each round; no further one is begun once it says so.

    Returns:
        For each action its results in the order of the rounds: entries of one index belong to one round.
    """
    generator = random.Random(seed)
    results: list[list[T]] = [[] for _ in actions]
    order = list(range(len(actions)))
    for _ in range(rounds):
        generator.shuffle(order)
        for place in order:
            if len(actions) > 1:
                rest(SETTLE_SECONDS)
            results[place].append(actions[place]())
            advance()
        if enough():
            break
    return results


def time_is_up(seconds: float | None, now: Callable[[], float] = time.perf_counter) -> Callable[[], bool]:
    """For :func:`interleave`: whether so many seconds, from now on, are over; never where there is no limit."""
    begin = now()
    return lambda: seconds is not None and now() - begin >= seconds


def warm_up(run: Callable[[], float], least: int) -> WarmUp:
    """Run until the duration is steady: the median of the last five agrees with that of the five before.

    Args:
        run: one frame; returns its duration.
        least: frames to run in any case; five times as many end it. 0 for none.
    """
    durations: list[float] = []
    while len(durations) < least:
        durations.append(run())
    while least and not _steady(durations):
        if len(durations) >= max(_WARM_MOST * least, 2 * WARM_WINDOW):
            return WarmUp(len(durations), False)
        durations.append(run())
    return WarmUp(len(durations), bool(least))


def _steady(durations: list[float]) -> bool:
    if len(durations) < 2 * WARM_WINDOW:
        return False
    before = statistics.median(durations[-2 * WARM_WINDOW : -WARM_WINDOW])
    return abs(statistics.median(durations[-WARM_WINDOW:]) - before) <= _WARM_CLOSE * before
