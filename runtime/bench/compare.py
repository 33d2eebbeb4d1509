"""What changed from one benchmark to another, and whether it is more than noise."""

from __future__ import annotations

from dataclasses import dataclass

from derain.errors import DataError
from derain.runtime.bench.figures import Change, change
from derain.runtime.bench.schema import BenchResult, Candidate, Reading


@dataclass(frozen=True)
class Compared:
    """One candidate in both results; ``change`` of the median is None where there are too few frames to tell."""

    first: Candidate
    second: Candidate
    change: Change | None

    @property
    def verdict(self) -> str:
        """In words."""
        if self.change is None:
            return "too few frames to tell"
        if not self.change.real:
            return "no difference beyond the noise"
        return "slower" if self.change.ratio > 0 else "faster"


def compare(first: BenchResult, second: BenchResult) -> list[Compared]:
    """Candidates of the same model, precision, backend, threads and tiles, in the first one's order.

    Raises:
        DataError: they have no candidate in common.
    """
    theirs = {candidate.key: candidate for candidate in second.candidates}
    pairs = [(ours, theirs[ours.key]) for ours in first.candidates if ours.key in theirs]
    if not pairs:
        raise DataError(
            f"The first result has {_labels(first)}, and the second {_labels(second)}",
            expected="at least one model with the same backend, threads and tiles in both",
        )
    return [Compared(a, b, change(a.samples_ms, b.samples_ms, paired=False, seed=first.seed)) for a, b in pairs]


def differences(first: BenchResult, second: BenchResult) -> tuple[list[str], list[str]]:
    """What is not the same in two results: (what forbids a verdict on the code, what may explain a change)."""
    forbidding: list[str] = []
    if (first.width, first.height) != (second.width, second.height):
        forbidding.append(f"frames of {_size(first)} and {_size(second)}")
    if first.source != second.source:
        forbidding.append(f"measured by {first.source} and {second.source}")
    explaining: list[str] = []
    if first.machine is None or second.machine is None:
        forbidding.append("a machine that is not known")
    else:
        ours, theirs = first.machine, second.machine
        for name in ("cpu", "cores", "board", "gpu"):
            forbidding += _differs(name, getattr(ours, name), getattr(theirs, name))
        for name in ("gpu_driver", "jetpack"):
            explaining += _differs(name.replace("_", " "), getattr(ours, name), getattr(theirs, name))
        for name in sorted(ours.versions.keys() & theirs.versions.keys()):
            explaining += _differs(name, ours.versions[name], theirs.versions[name])
    if first.before is not None and second.before is not None:
        for name in ("power_mode", "jetson_clocks"):
            forbidding += _differs(name.replace("_", " "), getattr(first.before, name), getattr(second.before, name))
        explaining += _differs("governor", first.before.governor, second.before.governor)
    files = {candidate.key: candidate.sha256 for candidate in first.candidates}
    explaining += [
        f"the file of {candidate.label}"
        for candidate in second.candidates
        if files.get(candidate.key, candidate.sha256) != candidate.sha256
    ]
    return forbidding, explaining


def slower_than(compared: list[Compared], limit: float) -> list[Compared]:
    """Those whose median grew by more than ``limit`` (0.05 is 5 %), and surely grew: the interval leaves out 0."""
    return [item for item in compared if item.change and item.change.low > 0 and item.change.ratio > limit]


def _differs(name: str, first: Reading, second: Reading) -> list[str]:
    if first.value == second.value:
        return []
    return [f"{name}: {_told(first)} and {_told(second)}"]


def _told(reading: Reading) -> str:
    return "unknown" if reading.value is None else str(reading.value)


def _labels(result: BenchResult) -> str:
    return "; ".join(candidate.label for candidate in result.candidates)


def _size(result: BenchResult) -> str:
    return "unknown size" if result.width is None else f"{result.width}x{result.height}"
