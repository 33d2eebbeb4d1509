"""The builder's progress: from TensorRT's nested phases to one bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Report = Callable[[str, float], None]
"""Called with the name of the innermost phase and the whole build's share that is done, 0 to 1, never decreasing."""


class PhaseTree:
    """The share of a build that is done, from phases inside phases.

    A step of a phase counts as an equal share of it; a phase inside a step fills that step. TensorRT tells neither how
    long a step takes nor how many phases there will be, so the bar moves unevenly.
    """

    def __init__(self) -> None:
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self._share = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of that many steps begins, inside the current step of ``parent``."""
        self._phases[name] = (parent if parent in self._phases else None, max(steps, 1), 0)

    def step(self, name: str, step: int) -> None:
        """Step number ``step``, counted from 0, of a phase is done."""
        if name in self._phases:
            parent, steps, _ = self._phases[name]
            self._phases[name] = (parent, steps, min(step + 1, steps))

    def finish(self, name: str) -> None:
        """A phase is over, whether or not all its steps were reported."""
        self._phases.pop(name, None)
        if not self._phases:
            self._share = 1.0

    @property
    def share(self) -> float:
        """0 to 1, never decreasing."""
        roots = [name for name, (parent, _, _) in self._phases.items() if parent is None]
        if roots:
            self._share = max(self._share, min(self._filled(roots[-1]), 1.0))
        return self._share

    @property
    def innermost(self) -> str:
        """Name of the phase that began last and goes on."""
        return next(reversed(self._phases), "")

    def _filled(self, name: str) -> float:
        _, steps, done = self._phases[name]
        inside = [child for child, (parent, _, _) in self._phases.items() if parent == name]
        current = max((self._filled(child) for child in inside), default=0.0)
        return min(done + current, steps) / steps


def make_monitor(trt: Any, report: Report | None, cancelled: Callable[[], bool]) -> Any:
    """An ``IProgressMonitor`` that reports and lets the user stop the build.

    TensorRT calls it from its own threads; an exception there would end the process, so it only returns answers.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.was_cancelled = False
            self._tree = PhaseTree()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._tree.start(phase_name, parent_phase, num_steps)
            self._tell()

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tree.step(phase_name, step)
            self._tell()
            self.was_cancelled = self.was_cancelled or cancelled()
            return not self.was_cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._tree.finish(phase_name)
            self._tell()

        def _tell(self) -> None:
            if report is not None:
                report(self._tree.innermost, self._tree.share)

    return Monitor()
