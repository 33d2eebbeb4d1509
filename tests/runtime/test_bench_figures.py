"""Statistics of a benchmark: percentiles as NumPy has them, intervals that find a change and do not invent one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from derain.runtime.bench.figures import change, summarise


def drifting(seed: int, frames: int = 200, level: float = 20.0) -> NDArray[np.float64]:
    """Durations in ms like a real machine's: skewed noise, a slow wave, and a rare long frame."""
    generator = np.random.default_rng(seed)
    wave = 1 + 0.02 * np.sin(np.arange(frames) / 15)
    noise = 1 + generator.gamma(2, 0.01, frames)
    return level * wave * noise + 30 * (generator.random(frames) < 0.01)


def test_percentiles_are_numpys() -> None:
    values = drifting(1)
    found = summarise(values.tolist())
    assert (found.count, found.mean, found.max) == (200, pytest.approx(values.mean()), values.max())
    assert [found.p50, found.p90, found.p99] == pytest.approx(np.percentile(values, [50, 90, 99]).tolist())


def test_one_frame_is_all_of_its_percentiles() -> None:
    found = summarise([3.5])
    assert (found.p50, found.p99, found.max, found.mean) == (3.5, 3.5, 3.5, 3.5)
    with pytest.raises((ValueError, IndexError)):
        summarise([])


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_ten_per_cent_are_found(paired: bool, factor: float) -> None:
    for seed in range(10):
        found = change(drifting(seed).tolist(), (factor * drifting(100 + seed)).tolist(), paired=paired)
        assert found is not None
        assert found.real
        assert found.low <= found.ratio <= found.high
        assert found.ratio == pytest.approx(factor - 1, abs=0.03)


@pytest.mark.parametrize("paired", [True, False])
def test_no_change_is_not_called_one(paired: bool) -> None:
    """An interval of 95 % is wrong now and then: at most 3 of these 30."""
    wrong = 0
    for seed in range(30):
        found = change(drifting(seed).tolist(), drifting(100 + seed).tolist(), paired=paired)
        assert found is not None
        wrong += found.real
    assert wrong <= 3


def test_pairing_takes_out_what_both_share() -> None:
    """A machine whose clock falls by half during the run, and two models that differ by 8 %."""
    slowing = np.linspace(1, 2, 200)
    first, second = drifting(1) * slowing, 1.08 * drifting(2) * slowing
    paired = change(first.tolist(), second.tolist(), paired=True)
    alone = change(first.tolist(), second.tolist(), paired=False)
    assert paired is not None
    assert alone is not None
    assert paired.real
    assert not alone.real
    assert paired.high - paired.low < alone.high - alone.low


def test_the_same_seed_gives_the_same_interval() -> None:
    first, second = drifting(1).tolist(), drifting(2).tolist()
    assert change(first, second, paired=True, seed=3) == change(first, second, paired=True, seed=3)
    assert change(first, second, paired=True, seed=3) != change(first, second, paired=True, seed=4)


@pytest.mark.parametrize(("first", "second", "paired"), [(7, 7, True), (7, 200, False), (200, 199, True)])
def test_too_little_to_tell(first: int, second: int, paired: bool) -> None:
    assert change([1.0] * first, [2.0] * second, paired=paired) is None
