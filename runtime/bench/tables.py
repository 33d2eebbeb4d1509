"""A benchmark for people: tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from derain.runtime.bench.compare import Compared
from derain.runtime.bench.figures import Change, change
from derain.runtime.bench.schema import BenchResult, Candidate, Conditions, Machine, Reading, StepTime

_STEPS = ("copy_in", "pre", "inference", "post", "copy_out")


def print_result(result: BenchResult, console: Console) -> None:
    """Latency, split, start-up and memory; sweeps where they were made; the machine; warnings."""
    size = "frames of unknown size" if result.width is None else f"{result.width}x{result.height}"
    title = f"{size}, {result.candidates[0].latency.frames} frames"
    if len(result.candidates) > 1:
        title += " of each, interleaved; ratio: median to that of the first"
    table = _table(title, "ms", "frames/s", "p50", "p90", "p99", "max", "ratio", "95 % of it")
    first = result.candidates[0]
    for candidate in result.candidates:
        found = candidate.latency
        paired = change(first.samples_ms, candidate.samples_ms, paired=True, seed=result.seed)
        table.add_row(
            candidate.label,
            f"{candidate.frames_per_second:.2f}",
            *(_ms(value) for value in (found.p50, found.p90, found.p99, found.max)),
            *(("", "") if candidate is first else _times(paired)),
        )
    console.print(table)
    _print_split(result.candidates, console)
    _print_start(result.candidates, console)
    _print_sweeps(result.candidates, console)
    for line in machine_lines(result.machine, result.before, result.after):
        console.print(line)
    for warning in result.warnings:
        console.print(f"Warning: {warning}", style="yellow")


def print_comparison(
    compared: Sequence[Compared],
    forbidding: Sequence[str],
    explaining: Sequence[str],
    warned: Sequence[str],
    console: Console,
) -> None:
    """The change of each median with its interval, and what besides the code is different.

    Args:
        forbidding, explaining: of :func:`derain.runtime.bench.compare.differences`.
        warned: what the results themselves warn of.
    """
    table = _table("median, first to second", "", "p50 ms", "change", "95 % interval")
    rest = _table("tail and memory", "", "p99 ms", "peak MiB")
    for item in compared:
        found = item.change
        table.add_row(
            item.first.label,
            f"{_ms(item.first.latency.p50)} to {_ms(item.second.latency.p50)}",
            "" if found is None else f"{found.ratio:+.1%}",
            "" if found is None else f"{found.low:+.1%} to {found.high:+.1%}",
        )
        rest.add_row(
            item.first.label,
            f"{_ms(item.first.latency.p99)} to {_ms(item.second.latency.p99)}",
            f"{_mebibytes(item.first.memory.peak_bytes)} to {_mebibytes(item.second.memory.peak_bytes)}",
        )
    console.print(table)
    for item in compared:
        console.print(f"{item.first.label}: {item.verdict}")
    console.print(rest)
    for text in warned:
        console.print(f"Warning: {text}", style="yellow")
    for text in forbidding:
        console.print(f"Warning: not the same in both: {text}: the change says nothing about the code", style="yellow")
    for text in explaining:
        console.print(f"Note: not the same in both: {text}", style="yellow")
    console.print(
        "The interval holds the noise within the runs (bootstrap over blocks of frames); what else differed between "
        "their times, such as other programs, it cannot know."
    )


def machine_lines(machine: Machine | None, first: Conditions | None, last: Conditions | None) -> list[str]:
    """The machine and its state before and after in a few lines; what could not be read is left to the JSON."""
    if machine is None or first is None or last is None:
        return ["The machine is not known."]
    parts = [f"{_told(machine.cpu)} ({machine.architecture}), {_told(machine.cores)} cores, {machine.cpus} CPUs"]
    parts += [str(item.value) for item in (machine.board, machine.gpu) if item.value is not None]
    versions = [f"{name} {item.value}" for name, item in machine.versions.items() if item.value is not None]
    state = f"before: {_state(first)}", f"after: {_state(last)}"
    return [f"{', '.join(parts)}; {machine.system}", ", ".join(versions), *state]


def _state(state: Conditions) -> str:
    parts = [f"load average {_told(state.load_average)}"]
    if isinstance(state.busy_others.value, float):
        parts.append(f"others used {state.busy_others.value:.0%} of the CPUs")
    for name, reading, unit in (
        ("CPU clock", state.cpu_clock_mhz, " MHz"),
        ("governor", state.governor, ""),
        ("GPU clock", state.gpu_clock_mhz, " MHz"),
        ("power mode", state.power_mode, ""),
        ("jetson_clocks", state.jetson_clocks, ""),
        ("GPU slowed down", state.gpu_throttled, ""),
    ):
        if reading.value is not None:
            parts.append(f"{name} {reading.value}{unit}")
    degrees = [item.value for item in state.temperatures.values() if isinstance(item.value, (int, float))]
    if degrees:
        parts.append(f"hottest zone {max(degrees):g} degrees")
    return ", ".join(parts)


def _print_split(candidates: Sequence[Candidate], console: Console) -> None:
    timed = [name for name in _STEPS if any(getattr(one.split, name).median is not None for one in candidates)]
    table = _table("where the time goes", "p50 ms (p99)", *(name.replace("_", " ") for name in timed))
    notes: dict[str, None] = {}
    for candidate in candidates:
        table.add_row(candidate.label, *(_step(getattr(candidate.split, name)) for name in timed))
        for name in _STEPS:
            if note := getattr(candidate.split, name).note:
                notes.setdefault(f"{name.replace('_', ' ')}: {note}")
    if timed:
        console.print(table)
    for note in notes:
        console.print(f"  {note}", style="dim")


def _print_start(candidates: Sequence[Candidate], console: Console) -> None:
    table = _table("start-up and memory", "", "load s", "1st frame ms", "build s", "peak MiB", "warm-up")
    for candidate in candidates:
        start = candidate.start_up
        table.add_row(
            candidate.label,
            "-" if start.load_seconds is None else f"{start.load_seconds:.2f}",
            "-" if start.first_frame_ms is None else f"{start.first_frame_ms:.0f}",
            "-" if start.build_seconds.value is None else f"{start.build_seconds.value:g}",
            _mebibytes(candidate.memory.peak_bytes),
            f"{candidate.warm_up_frames}" + ("" if candidate.warm_up_stable else ", not steady"),
        )
    console.print(table)
    for candidate in candidates:
        for item in candidate.energy:
            text = f"{1e3 * item.joules_per_frame:.1f} mJ for a frame, {item.watts:.2f} W ({item.source})"
            console.print(f"{candidate.label}: {text}")
    for reason in dict.fromkeys(item.energy_missing for item in candidates if item.energy_missing):
        console.print(f"Energy is not known: {reason}", style="dim")


def _print_sweeps(candidates: Sequence[Candidate], console: Console) -> None:
    if any(candidate.batches for candidate in candidates):
        table = _table("batches, inference alone", "", "batch", "frames/s", "p50 ms", "p99 ms")
        for candidate in candidates:
            for item in candidate.batches:
                cells = (f"refused: {item.refused}", "", "")
                if item.latency is not None:
                    cells = (f"{item.frames_per_second:.2f}", f"{item.latency.p50:.1f}", f"{item.latency.p99:.1f}")
                table.add_row(candidate.label, str(item.size), *cells)
        console.print(table)
    if any(candidate.streams for candidate in candidates):
        table = _table(
            "streams through one model", "", "streams", "frames/s in all", "fairness", "age p50 ms", "age p99 ms"
        )
        for candidate in candidates:
            for found in candidate.streams:
                rate, ages = f"{found.frames_per_second:.2f}", (f"{found.age_p50_ms:.0f}", f"{found.age_p99_ms:.0f}")
                table.add_row(candidate.label, str(found.streams), rate, f"{found.fairness:.2f}", *ages)
        console.print(table)
    for candidate in candidates:
        if candidate.end_to_end is not None:
            whole = candidate.end_to_end
            stages = ", ".join(f"{name} {_step(time)}" for name, time in whole.stages.items())
            console.print(
                f"{candidate.label}, {whole.video} from end to end: {whole.frames_per_second:.2f} frames/s over "
                f"{whole.frames} frames; ms: {stages}"
                + ("" if whole.peak_bytes is None else f"; peak {_mebibytes(whole.peak_bytes)} MiB")
            )


def _table(title: str, *columns: str) -> Table:
    """The first column after the title holds names and has the unit as its head."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(columns[0], justify="left", overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)  # a narrow terminal folds names, and cuts no figure
    return table


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _step(step: StepTime) -> str:
    return "-" if step.median is None or step.p99 is None else f"{_ms(step.median)} ({_ms(step.p99)})"


def _times(found: Change | None) -> tuple[str, str]:
    """A ratio of medians, and its interval."""
    if found is None:
        return "too few frames", ""
    return f"{1 + found.ratio:.2f}", f"{1 + found.low:.2f} to {1 + found.high:.2f}"


def _mebibytes(reading: Reading) -> str:
    return f"{reading.value / 2**20:.0f}" if isinstance(reading.value, int) else "-"


def _told(reading: Reading) -> str:
    return "unknown" if reading.value is None else str(reading.value)
