"""The figures of the gate, and the search for the fewest layers to keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tiny_model import scene, tiny_card

from derain.calibration import gate
from derain.calibration.search import fewest_kept, sensitivities
from derain.errors import CalibrationError
from derain.metrics import psnr


def _check(seed: int, paired: bool = True) -> gate.Check:
    rainy, clean = scene(seed)
    return gate.Check(f"{seed}.png", rainy, clean if paired else None, clean // 2 + rainy // 2)


def _measure(change: int, paired: bool = True) -> gate.Change:
    checks = [_check(seed, paired) for seed in range(3)]
    outputs = {check.rainy.tobytes(): check.derained for check in checks}
    shifted = lambda frame: np.clip(outputs[frame.tobytes()].astype(int) + change, 0, 255).astype(np.uint8)  # noqa: E731
    return gate.measure(shifted, checks, gate.reference_error(tiny_card()))


def test_no_change_costs_nothing() -> None:
    change = _measure(0)
    assert (change.drop, change.mean_shift, change.banding, change.clipped_low) == (0, 0, 0, 0)
    assert change.closeness == 100
    assert change.psnr is not None
    assert change.psnr[0] == change.psnr[1]


def test_darkening_is_seen() -> None:
    change = _measure(-6)
    assert -6 <= change.worst_shift <= change.mean_shift < -5
    assert change.clipped_low >= 0
    with pytest.raises(CalibrationError, match=r"-[56]\.\d+ levels"):
        gate.judge(change, 100.0, "int8")


def test_the_drop_is_the_difference_of_psnr() -> None:
    change = _measure(4)
    expected = []
    for seed in range(3):
        check = _check(seed)
        assert check.truth is not None
        after = np.clip(check.derained.astype(int) + 4, 0, 255).astype(np.uint8)
        expected.append(psnr(check.derained, check.truth, "y_matlab") - psnr(after, check.truth, "y_matlab"))
    assert change.drop == pytest.approx(np.mean(expected))
    assert change.worst.drop == pytest.approx(max(expected))
    with pytest.raises(CalibrationError, match=r"at most 0\.01 dB"):
        gate.judge(change, 0.01, "int8")


def test_the_search_sees_every_limit_of_the_gate() -> None:
    """A drop that is small enough does not do where a frame is darkened: more layers must move."""
    checks = [_check(seed) for seed in range(2)]
    outputs = {check.rainy.tobytes(): check.derained for check in checks}
    same = gate.burden(lambda frame: outputs[frame.tobytes()], checks, 1.0, 0.2)
    darker = gate.burden(lambda frame: np.maximum(outputs[frame.tobytes()], 2) - 2, checks, 1.0, 50.0)
    assert same == (0, 0)
    assert darker[0] < 50.0 < darker[1]


def test_a_frame_that_no_one_could_tell_apart_is_not_lost() -> None:
    """From 57 to 54 dB is a large loss and an invisible one; from 40 to 37 dB is neither."""
    random = np.random.default_rng(0)
    clean = random.integers(60, 200, (64, 64, 3)).astype(np.uint8)

    def burden(every: int, size: int) -> tuple[float, float]:
        changed = clean.copy()
        changed[::every, ::every] += size
        check = gate.Check("dry", clean, None, changed, dry=True)
        worse = clean.copy()
        worse[::every, ::every] += size
        worse[1::every, ::every] += size
        return gate.burden(lambda _: worse, [check], 1.0, 0.2)

    drop, within = burden(4, 2)
    assert drop == pytest.approx(10 * math.log10(2), abs=0.2)
    assert within == drop
    drop, beyond = burden(4, 12)
    assert beyond > drop + 1


def test_no_source_may_lose_what_another_gains() -> None:
    frames = [scene(seed) for seed in range(3)]
    sources = ["street", "yard", ""]
    checks = [
        gate.Check(f"{source}.png", rainy, None if source == "" else clean, rainy, dry=source == "", source=source)
        for source, (rainy, clean) in zip(sources, frames, strict=True)
    ]
    better, worse = frames[0], frames[1]
    outputs = {
        better[0].tobytes(): better[1],
        worse[0].tobytes(): np.clip(worse[0].astype(int) + 20, 0, 255).astype(np.uint8),
        frames[2][0].tobytes(): frames[2][0],
    }
    change = gate.measure(lambda frame: outputs[frame.tobytes()], checks, 1.0)
    assert list(change.groups) == ["street", "yard", gate.DRY_GROUP]
    assert change.groups["street"] < -20
    assert change.groups[gate.DRY_GROUP] == 0
    assert change.drop == change.groups["yard"] > 0
    assert gate.burden(lambda frame: outputs[frame.tobytes()], checks, 1.0, 100.0)[0] == change.drop
    with pytest.raises(CalibrationError, match="the mean of 'yard'"):
        gate.judge(change, 0.1, "int8")
    assert gate.mean_loss(lambda frame: outputs[frame.tobytes()], checks, 1.0) == pytest.approx(change.drop / 3)


def test_dry_frames_are_compared_with_themselves() -> None:
    frame = scene(1)[0]
    assert gate.Check("", frame, None, frame, dry=True).wanted is frame
    assert gate.Check("", frame, None, frame).wanted is None
    truth = scene(1)[1]
    assert gate.Check("", frame, truth, frame, dry=True).wanted is truth


def test_without_truth_the_drop_is_estimated() -> None:
    change = _measure(2, paired=False)
    assert change.psnr is None
    assert 0 < change.drop < 1
    # An independent error as large as the one there costs 3 dB.
    assert gate.estimated_drop(25.0, 25.0) == pytest.approx(10 * math.log10(2))
    assert gate.reference_error(tiny_card()) == pytest.approx(255**2 / 1000)  # 30 dB where the card states nothing


def test_the_estimate_fits_independent_noise() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(60, 190, (200, 200, 3)).astype(np.float64)
    derained = truth + random.normal(0, 6, truth.shape)
    found = derained + random.normal(0, 3, truth.shape)
    truth8, derained8, found8 = (np.clip(np.rint(a), 0, 255).astype(np.uint8) for a in (truth, derained, found))
    real = psnr(derained8, truth8, "y_matlab") - psnr(found8, truth8, "y_matlab")
    assert gate.estimated_drop(9.0, 36.0) == pytest.approx(real, abs=0.05)


def test_banding_is_seen_and_texture_is_not() -> None:
    ramp = np.repeat(np.tile(np.linspace(80, 130, 200)[None, :], (60, 1))[..., None], 3, axis=2)
    smooth = np.rint(ramp).astype(np.uint8)
    banded = (np.rint(ramp / 6) * 6).astype(np.uint8)
    assert gate.banding(smooth, smooth) == 0
    assert gate.banding(banded, smooth) > 0.01
    texture = np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8)
    assert gate.banding(255 - texture, texture) == 0


COSTS = {"a": 0.01, "b": 0.5, "c": 0.2, "d": 0.05}


def _drop(kept: frozenset[str]) -> float:
    return sum(cost for layer, cost in COSTS.items() if layer not in kept)


def test_sensitivity_is_of_one_layer_alone() -> None:
    assert sensitivities(list(COSTS), _drop) == pytest.approx(COSTS)


@pytest.mark.parametrize(
    ("limit", "kept"), [(1.0, set()), (0.3, {"b"}), (0.1, {"b", "c"}), (0.02, {"b", "c", "d"}), (0.0, set("abcd"))]
)
def test_the_fewest_layers_are_kept(limit: float, kept: set[str]) -> None:
    found = fewest_kept(list(COSTS), COSTS, _drop, limit)
    assert found.kept == kept
    assert found.drop <= limit
    assert found.steps[0] == (0, pytest.approx(0.76))


def test_what_only_helped_on_the_way_is_given_back() -> None:
    """The sensitive layer b costs nothing once d is kept: together they hide each other's errors."""

    def drop(kept: frozenset[str]) -> float:
        return 0.0 if "d" in kept else 0.5

    found = fewest_kept(list(COSTS), COSTS, drop, 0.1)
    assert found.kept == {"d"}


def test_a_loss_that_no_layer_causes() -> None:
    found = fewest_kept(list(COSTS), COSTS, lambda kept: 1.0, 0.1)
    assert found.kept == set(COSTS)
    assert found.drop == 1.0
