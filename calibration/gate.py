"""The quality gate: what lower precision does to held-out frames, measured against the float32 model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from derain.card import ModelCard
from derain.errors import CalibrationError
from derain.metrics import luma, psnr, ssim
from derain.runtime.ports import Picture

Derain = Callable[[Picture], Picture]
# Quality of the float32 model where the card states none, dB.
USUAL_PSNR = 30.0
# How far the mean level of a frame may shift, of 255, and how far one frame may fall.
SHIFT_LIMIT = 1.0
DRY_GROUP = "dry frames"
# A frame that is closer than this to the float32 model's, dB, has lost nothing that could be seen, whatever its PSNR.
UNSEEN = 50.0
_WORST_FACTOR = 5.0
_WORST_LEAST = 0.5  # dB: below this no single frame is a failure
_SMOOTH = 8  # levels: the range within a smooth 9x9 neighbourhood
_EXACT = 100.0  # dB, for equal pictures


@dataclass(frozen=True)
class Check:
    """A held-out frame with its ground truth, if there is one, and what the float32 model makes of it.

    A frame without truth that is ``dry`` is its own: the model should leave it alone.
    """

    name: str
    rainy: Picture
    truth: Picture | None
    derained: Picture
    dry: bool = False
    source: str = ""

    @property
    def group(self) -> str:
        """Frames whose mean counts: those of a source, or all dry ones. Of one group another's gain is no comfort."""
        return DRY_GROUP if self.truth is None and self.dry else self.source

    @property
    def wanted(self) -> Picture | None:
        """What the frame is compared with."""
        return self.rainy if self.truth is None and self.dry else self.truth


@dataclass(frozen=True)
class Score:
    """What lower precision did to one frame; see :class:`Change`."""

    name: str
    group: str
    drop: float
    psnr: tuple[float, float] | None
    ssim: tuple[float, float] | None
    closeness: float
    mean_shift: float
    banding: float
    clipped_low: float
    clipped_high: float


@dataclass(frozen=True)
class Change:
    """Means over the held-out frames.

    Attributes:
        drop: loss of PSNR (Y channel) in dB; against themselves for dry frames, and of other frames without ground
            truth an estimate, see :func:`estimated_drop`. The mean of the group that loses most; ``groups`` has all.
        psnr, ssim: before and after, of the frames with ground truth; None without any.
        closeness: PSNR of the result against the float32 model's, dB.
        mean_shift: of the levels, of 255; negative is darker. The largest in magnitude of any frame is ``worst_shift``.
        banding: fraction of smooth places where a step of three levels or more appeared.
        clipped_low, clipped_high: change of the fraction of values at 0 and at 255.
    """

    scores: tuple[Score, ...]
    drop: float
    groups: dict[str, float]
    worst: Score
    psnr: tuple[float, float] | None
    ssim: tuple[float, float] | None
    closeness: float
    mean_shift: float
    worst_shift: float
    banding: float
    clipped_low: float
    clipped_high: float


def reference_error(card: ModelCard) -> float:
    """Mean square error, in squared levels, that the card's own PSNR (Y channel) stands for."""
    stated = [
        quality.psnr for quality in card.quality if quality.protocol == "y_matlab" and math.isfinite(quality.psnr)
    ]
    return float(255.0**2 / 10 ** ((stated[0] if stated else USUAL_PSNR) / 10))


def estimated_drop(difference: float, reference: float) -> float:
    """Loss of PSNR in dB of a picture whose mean square error is ``reference`` by an independent one more.

    Args:
        difference: mean square difference from the float32 model's picture, in squared levels.
        reference: of the float32 model's picture from the truth, in squared levels.
    """
    return float(10 * math.log10(1 + difference / reference))


def mean_drop(derain: Derain, checks: Sequence[Check], reference: float) -> float:
    """Mean drop of all frames, dB."""
    return float(np.mean([_drop(derain(check.rainy), check, reference) for check in checks]))


def mean_loss(derain: Derain, checks: Sequence[Check], reference: float) -> float:
    """Mean drop in dB, a frame that gains counting as one that stays: gains on a few frames are no gain elsewhere."""
    return float(np.mean([max(0.0, _drop(derain(check.rainy), check, reference)) for check in checks]))


def group_means(drops: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Mean of each group, given group and drop of each frame."""
    groups = dict.fromkeys(group for group, _ in drops)
    return {group: float(np.mean([drop for other, drop in drops if other == group])) for group in groups}


def burden(derain: Derain, checks: Sequence[Check], reference: float, max_drop: float) -> tuple[float, float]:
    """The drop in dB of the group that loses most, and what the search lowers: more where another limit breaks."""
    drops, shifts, seen = [], [], []
    for check in checks:
        found = derain(check.rainy)
        drops.append((check.group, _drop(found, check, reference)))
        if _capped(found, check.derained) < UNSEEN:
            seen.append(drops[-1][1])
        shifts.append(abs(float(found.mean() - check.derained.mean())))
    drop = max(group_means(drops).values())
    over = max(max(shifts) / SHIFT_LIMIT, max(seen, default=0.0) / worst_limit(max_drop))
    return drop, drop if over <= 1 else max(drop, max_drop) + over


def worst_limit(max_drop: float) -> float:
    """How much any one frame may lose, dB."""
    return max(_WORST_LEAST, _WORST_FACTOR * max_drop)


def judge(change: Change, max_drop: float, kind: str) -> None:
    """Let a calibration pass or fail.

    Raises:
        CalibrationError: the mean drop exceeds ``max_drop``, a frame becomes darker or brighter, or one frame is lost.
    """
    fix = (
        "Nothing was written. Give more and more varied --frames, allow a larger --max-drop, or fine-tune the network "
        "for INT8 with derain train --qat"
    )
    if change.drop > max_drop:
        group = max(change.groups, key=lambda name: change.groups[name])
        of = "" if len(change.groups) == 1 else f", the mean of '{group}'"
        raise CalibrationError(f"{kind} costs {change.drop:.3f} dB{of}", expected=f"at most {max_drop:g} dB", fix=fix)
    if abs(change.worst_shift) > SHIFT_LIMIT:
        raise CalibrationError(
            f"{kind} changes the mean of a frame by {change.worst_shift:+.2f} levels",
            expected=f"at most {SHIFT_LIMIT:g}",
            fix=fix,
        )
    seen = [score for score in change.scores if score.closeness < UNSEEN]
    lost = max(seen, key=lambda score: score.drop, default=change.worst)
    if seen and lost.drop > worst_limit(max_drop):
        raise CalibrationError(
            f"{kind} costs {lost.drop:.2f} dB on '{lost.name}'",
            expected=f"at most {worst_limit(max_drop):g} dB on any frame",
            fix=fix,
        )


def measure(derain: Derain, checks: Sequence[Check], reference: float) -> Change:
    """All figures of all held-out frames.

    Args:
        derain: the model of lower precision.
        checks: at least one.
        reference: of :func:`reference_error`.
    """
    scores = tuple(_score(derain(check.rainy), check, reference) for check in checks)

    groups = group_means([(score.group, score.drop) for score in scores])

    def mean(name: str) -> float:
        return float(np.mean([getattr(score, name) for score in scores]))

    return Change(
        scores=scores,
        drop=max(groups.values()),
        groups=groups,
        worst=max(scores, key=lambda score: score.drop),
        psnr=_mean_pair([score.psnr for score in scores]),
        ssim=_mean_pair([score.ssim for score in scores]),
        closeness=mean("closeness"),
        mean_shift=mean("mean_shift"),
        worst_shift=max((score.mean_shift for score in scores), key=abs),
        banding=mean("banding"),
        clipped_low=mean("clipped_low"),
        clipped_high=mean("clipped_high"),
    )


def _drop(found: Picture, check: Check, reference: float) -> float:
    wanted = check.wanted
    if wanted is None:
        difference = luma(found).astype(np.float64) - luma(check.derained).astype(np.float64)
        return estimated_drop(float(np.mean(difference**2)), reference)
    return _capped(check.derained, wanted) - _capped(found, wanted)


def _capped(a: Picture, b: Picture) -> float:
    return min(psnr(a, b, "y_matlab"), _EXACT)


def _score(found: Picture, check: Check, reference: float) -> Score:
    truth, before = check.truth, check.derained
    return Score(
        name=check.name,
        group=check.group,
        drop=_drop(found, check, reference),
        psnr=None if truth is None else (_capped(before, truth), _capped(found, truth)),
        ssim=None if truth is None else (ssim(before, truth, "y_matlab"), ssim(found, truth, "y_matlab")),
        closeness=_capped(found, before),
        mean_shift=float(found.mean() - before.mean()),
        banding=banding(found, before),
        clipped_low=float((found == 0).mean() - (before == 0).mean()),
        clipped_high=float((found == 255).mean() - (before == 255).mean()),
    )


def _mean_pair(pairs: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [pair for pair in pairs if pair is not None]
    if not known:
        return None
    before, after = np.mean(known, axis=0)
    return float(before), float(after)


def banding(found: Picture, before: Picture) -> float:
    """Fraction of smooth places of ``before`` where ``found`` has a new false contour; both uint8 (H, W, 3) BGR.

    A place is smooth where luma varies by at most 8 levels in the 9x9 pixels around; a false contour is a step between
    neighbours of three levels or more where ``before`` has one or none. 0 where nothing is smooth.
    """
    ours, theirs = luma(found).astype(np.int16), luma(before).astype(np.int16)
    kernel = np.ones((9, 9), np.uint8)
    flat = luma(before)
    smooth = (cv2.dilate(flat, kernel).astype(np.int16) - cv2.erode(flat, kernel)) <= _SMOOTH
    places = new = 0
    for axis in (0, 1):
        area = np.take(smooth, range(smooth.shape[axis] - 1), axis)
        step = (np.abs(np.diff(ours, axis=axis)) >= 3) & (np.abs(np.diff(theirs, axis=axis)) <= 1)
        places += int(area.sum())
        new += int((step & area).sum())
    return new / places if places else 0.0
