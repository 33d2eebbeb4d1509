"""A benchmark as a picture: how latency is distributed, and what quality costs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from derain.errors import MissingDependencyError
from derain.files import atomic_path
from derain.runtime.bench.schema import BenchResult, Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

COLOURS = ("#30638e", "#d1495b", "#edae49", "#00798c", "#6a4c93", "#8d6b48", "#5b8e3e", "#444444")
_PROTOCOL = "y_matlab"


def need_plots() -> None:
    """Make sure that plots can be drawn, before work begins.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("matplotlib", needed_for="derain bench --plot", extra="plot") from error


def plot_result(result: BenchResult, path: Path) -> None:
    """Write a picture with one panel for each kind of figure that the result holds; the suffix decides the format."""
    from matplotlib.figure import Figure

    panels = [draw_latency]
    if _common_set(result.candidates) is not None:
        panels.append(draw_quality)
    if any(candidate.streams for candidate in result.candidates):
        panels.append(draw_streams)
    figure = Figure(figsize=(6.2 * len(panels), 4.6), layout="constrained")
    for number, draw in enumerate(panels):
        draw(figure.add_subplot(1, len(panels), number + 1), result.candidates)
    cpu = result.machine.cpu.value if result.machine is not None else "a machine that is not known"
    size = "" if result.width is None else f"{result.width}x{result.height}, "
    figure.suptitle(f"{size}{cpu}, {result.date[:10]}", fontsize=9, color="#555555")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_latency(axes: Axes, candidates: list[Candidate]) -> None:
    """Share of frames that took at most so long; dots at the median and the 99th percentile."""
    for candidate, colour in zip(candidates, _colours(len(candidates)), strict=True):
        times = np.sort(candidate.samples_ms)
        axes.step(times, np.arange(1, times.size + 1) / times.size, where="post", color=colour, label=candidate.label)
        axes.plot([candidate.latency.p50, candidate.latency.p99], [0.5, 0.99], "o", color=colour, markersize=4)
    medians = [candidate.latency.p50 for candidate in candidates]
    if max(medians) > 4 * min(medians):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("milliseconds for one frame")
    axes.set_ylabel("share of frames that took at most so long")
    axes.set_title("latency; dots: median and 99th percentile", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw_quality(axes: Axes, candidates: list[Candidate]) -> None:
    """PSNR of the model card against the median time, on the first set that all models were measured on."""
    dataset = _common_set(candidates)
    for candidate, colour in zip(candidates, _colours(len(candidates)), strict=True):
        quality = next(q for q in candidate.quality if (q.dataset, q.protocol) == (dataset, _PROTOCOL))
        axes.plot(candidate.latency.p50, quality.psnr, "o", color=colour, label=candidate.label)
    axes.set_xlim(0, 1.15 * max(candidate.latency.p50 for candidate in candidates))
    axes.margins(y=0.5)
    axes.set_xlabel("median milliseconds for one frame")
    axes.set_ylabel(f"PSNR, dB ({_PROTOCOL})")
    axes.set_title(f"quality against cost: {dataset}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw_streams(axes: Axes, candidates: list[Candidate]) -> None:
    """Throughput of all streams together against their number; each point with its fairness."""
    for candidate, colour in zip(candidates, _colours(len(candidates)), strict=True):
        numbers = [item.streams for item in candidate.streams]
        rates = [item.frames_per_second for item in candidate.streams]
        axes.plot(numbers, rates, "o-", color=colour, label=candidate.label)
        for item in candidate.streams:
            axes.annotate(
                f"{item.fairness:.2f}",
                (item.streams, item.frames_per_second),
                xytext=(0, 6),
                textcoords="offset points",
                fontsize=7,
                ha="center",
            )
    axes.set_ylim(0, 1.15 * max(item.frames_per_second for candidate in candidates for item in candidate.streams))
    axes.set_xticks(sorted({item.streams for candidate in candidates for item in candidate.streams}))
    axes.set_xlabel("streams through one model")
    axes.set_ylabel("frames a second, all streams together")
    axes.set_title("streams; numbers: fairness (fewest to most frames)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _common_set(candidates: list[Candidate]) -> str | None:
    """The first data set of the first card that every card has, under one protocol."""
    sets = Counter(
        dataset
        for candidate in candidates
        for dataset in {quality.dataset for quality in candidate.quality if quality.protocol == _PROTOCOL}
    )
    ordered = [quality.dataset for quality in candidates[0].quality if quality.protocol == _PROTOCOL]
    return next((dataset for dataset in ordered if sets[dataset] == len(candidates)), None)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def plain_ticks(axis: Axis) -> None:
    """Numbers such as 20 and 500 on a logarithmic axis, in the place of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())
