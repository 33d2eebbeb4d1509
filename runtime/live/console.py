"""A live job on the terminal: a table while it runs, a summary when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from derain.runtime.interrupt import stop_on_signals
from derain.runtime.live.run import LiveRun
from derain.runtime.live.stream import StreamReport

_REFRESH_SECONDS = 0.5


def run_live(run: LiveRun, about: str) -> list[StreamReport]:
    """Run until the streams end or a signal comes; then drain, and print what was done.

    Raises:
        typer.Exit: stopped by a signal (128 + its number), or a stream failed (1), after the summary.
    """
    errors = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    with stop_on_signals() as stop, _table(errors) as show:
        run.start()
        while not run.wait(_REFRESH_SECONDS):
            if stop.is_set():
                run.stop()
            show(run.reports())
    reports = run.reports()
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for report in reports:
        console.print(summary(report))
    console.print(about)
    for report in reports:
        if report.state == "failed":
            errors.print(f"{report.name}: {report.reason}", style="red")
    if stop.is_set():
        raise typer.Exit(128 + (stop.signal_number or 0))
    if any(report.state == "failed" for report in reports):
        raise typer.Exit(1)
    return reports


def summary(report: StreamReport) -> str:
    """One line about a stream."""
    dropped = ", ".join(f"{count} {cause}" for cause, count in sorted(report.dropped.items())) or "none"
    return (
        f"{report.name}: {report.delivered} of {report.captured} frames; dropped: {dropped}; age "
        f"{1e3 * report.age_p50:.0f} ms (p99 {1e3 * report.age_p99:.0f}); {report.reconnections} reconnections"
    )


@contextmanager
def _table(console: Console) -> Iterator[Callable[[list[StreamReport]], None]]:
    """A table that follows the streams on a terminal; nothing elsewhere."""
    if not console.is_terminal:
        yield lambda reports: None
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda reports: live.update(_rows(reports))


def _rows(reports: list[StreamReport]) -> Table:
    table = Table("stream", "state", "size", "frames/s", "age ms (p99)", "dropped", "rain")
    for report in reports:
        size = "" if report.size is None else f"{report.size[0]} x {report.size[1]}"
        rain = "" if report.rain is None else f"{report.rain:.2f}{' (dry: passed)' if report.gated else ''}"
        age = f"{1e3 * report.age_p50:.0f} ({1e3 * report.age_p99:.0f})"
        table.add_row(
            report.name, report.state, size, f"{report.rate:.1f}", age, str(sum(report.dropped.values())), rain
        )
    return table
