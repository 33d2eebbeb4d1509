"""The page's tables, in Markdown, and its picture of growth: from results to text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from measure import GROWTH, LENGTHS, shown
from ratios import MODELS, Ratios

from derain.card import read_card
from derain.files import atomic_path
from derain.models import resolve
from derain.runtime.bench.plot import COLOURS, plain_ticks
from derain.runtime.bench.schema import BenchResult, StepTime
from derain.runtime.bench.tables import machine_lines


def head(result: BenchResult) -> str:
    """Command, machine and date, and what the figures suffer from."""
    warnings = "".join(f"\n- Beware: {warning}." for warning in result.warnings)
    return f"```\n{shown(result.command)}\n```\n\n{where(result)}\n{warnings}"


def where(result: BenchResult) -> str:
    """Date and machine."""
    return f"{result.date[:10]}. {'. '.join(machine_lines(result.machine, result.before, result.after))}."


def latency_table(result: BenchResult) -> str:
    """Time, where it goes, start-up and memory: one row for each candidate in each of two tables."""
    times = [
        (
            item.label,
            f"{item.frames_per_second:.2f}",
            *(f"{ms:.1f}" for ms in (item.latency.p50, item.latency.p90, item.latency.p99, item.latency.max)),
            *(step(part) for part in (item.split.pre, item.split.inference, item.split.post)),
        )
        for item in result.candidates
    ]
    starts = [
        (
            item.label,
            f"{item.start_up.load_seconds or 0:.2f}",
            f"{item.start_up.first_frame_ms or 0:.0f}",
            mebibytes(item.memory.peak_bytes.value),
            f"{item.warm_up_frames}" + ("" if item.warm_up_stable else " (not steady)"),
        )
        for item in result.candidates
    ]
    heads = ("", "frames/s", "p50 ms", "p90", "p99", "max", "pre ms", "inference", "post")
    note = "Copies in and out: none, the backends work on the frames' own memory."
    start_heads = ("", "load s", "first frame ms", "peak MiB", "warm-up frames")
    return f"{table(heads, times)}\n\n{note}\n\n{table(start_heads, starts)}"


def end_to_end_table(result: BenchResult) -> str:
    """Rates and stages."""
    rows = []
    for item in result.candidates:
        whole = item.end_to_end
        assert whole is not None
        stages = (step(whole.stages[name]) for name in ("decode", "infer", "encode"))
        rows.append((item.label, f"{whole.frames_per_second:.2f}", *stages, f"{item.frames_per_second:.2f}"))
    return table(("", "end to end, frames/s", "decode ms", "infer ms", "encode ms", "array to array, frames/s"), rows)


def streams_table(result: BenchResult) -> str:
    """One row for each number of streams."""
    rows = [
        (
            str(n.streams),
            f"{n.frames_per_second:.2f}",
            f"{n.fairness:.2f}",
            f"{n.age_p50_ms:.0f}",
            f"{n.age_p99_ms:.0f}",
        )
        for item in result.candidates
        for n in item.streams
    ]
    return table(("streams", "frames/s in all", "fairness", "age p50 ms", "age p99 ms"), rows)


def length_table(results: dict[str, BenchResult]) -> str:
    """One row for each length of a video."""
    rows = []
    found = [results[f"video-{length}"] for length in LENGTHS if f"video-{length}" in results]
    for result in found:
        (item,) = result.candidates
        whole = item.end_to_end
        assert whole is not None
        peak = mebibytes(None if whole.peak_bytes is None else whole.peak_bytes.value)
        seconds = f"{whole.seconds:.1f}"
        rows.append((str(whole.frames), seconds, f"{whole.frames_per_second:.2f}", peak, f"`{shown(result.command)}`"))
    heads = ("frames", "seconds", "frames/s", "peak MiB", "command")
    return f"{where(found[-1])}\n\n{table(heads, rows)}" if found else ""


def ratios_text(ratios: Ratios) -> str:
    """Where it was measured, a table of times and shares, and one of quality."""
    rows = []
    prenet = ratios.find("PReNet", "PyTorch, eager")
    for model in MODELS:
        eager = ratios.find(model, "PyTorch, eager")
        for engine in ("openvino", "onnxruntime"):
            ours, stack = ratios.find(model, engine), ratios.find(model, f"stack, {engine}")
            assert ours is not None
            assert stack is not None
            rows.append(
                (
                    f"{model}, {engine}",
                    f"{1000 / ours.median:.2f}",
                    f"{ours.median:.1f}",
                    f"{stack.median:.1f}",
                    f"{stack.median / ours.median:.0%}",
                    "-" if eager is None else f"{eager.median / ours.median:.1f}",
                    "-" if prenet is None else f"{prenet.median / ours.median:.0f}",
                )
            )
    heads = ("", "frames/s", "median ms", "3x3 convolutions ms", "share of them", "times PyTorch", "times PReNet")
    times = table(heads, rows)
    quality = []
    for model in MODELS:
        ours, card = ratios.find(model, "openvino"), read_card(resolve(model))
        found = next(q for q in card.quality if (q.dataset, q.protocol) == ("Rain100L/test", "y_matlab"))
        assert ours is not None
        quality.append((model, f"{1000 / ours.median:.2f}", f"{found.psnr:.2f}", f"{found.ssim:.4f}"))
    if ratios.prenet is not None:
        rate = "-" if prenet is None else f"{1000 / prenet.median:.2f}"
        quality.append(("PReNet (PyTorch)", rate, f"{ratios.prenet.psnr:.2f}", f"{ratios.prenet.ssim:.4f}"))
    peers = table(("", "frames/s at 1280x720", "PSNR dB", "SSIM"), quality)
    warned = "".join(f"\n- Beware: {warning}." for warning in ratios.warnings)
    lines = ". ".join(machine_lines(ratios.machine, ratios.before, ratios.after))
    return f"```\n{ratios.command}\n```\n\n{ratios.date[:10]}. {lines}.\n{warned}\n\n{times}\n\n{peers}"


def growth_table(results: dict[str, BenchResult]) -> str:
    """One row for each size and way, each a run of its own (the machine is the last one's); empty without any."""
    rows = []
    for way in ("whole", "tiles"):
        for size, result in _grown(results, way):
            (item,) = result.candidates
            load = "" if result.before is None else f"{result.before.load_average.value}"
            times = f"{item.latency.p50:.0f}", f"{item.latency.p99:.0f}"
            command = f"`{shown(result.command)}`"
            rows.append(
                (size, way, *times, mebibytes(item.memory.peak_bytes.value), str(item.latency.frames), load, command)
            )
    heads = ("size", "", "p50 ms", "p99 ms", "peak MiB", "frames", "load before", "command")
    last = [result for _, result in _grown(results, "whole")][-1:]
    return f"{where(last[0])}\n\n{table(heads, rows)}" if last else ""


def draw_growth(results: dict[str, BenchResult], path: Path) -> None:
    """Median time and peak memory against the number of pixels."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    times, memory = figure.subplots(1, 2)
    for way, colour in zip(("whole", "tiles"), COLOURS, strict=False):
        found = _grown(results, way)
        pixels = [(result.width or 0) * (result.height or 0) / 1e6 for _, result in found]
        one = [result.candidates[0] for _, result in found]
        times.plot(pixels, [item.latency.p50 for item in one], "o-", color=colour, label=f"{way}, median")
        times.plot(pixels, [item.latency.p99 for item in one], "^", color=colour, label=f"{way}, 99th percentile")
        memory.plot(
            pixels, [float(item.memory.peak_bytes.value or 0) / 2**20 for item in one], "o-", color=colour, label=way
        )
    for axes, label in ((times, "milliseconds for one frame"), (memory, "peak resident memory, MiB")):
        axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel=label)
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _grown(results: dict[str, BenchResult], way: str) -> list[tuple[str, BenchResult]]:
    return [(size, results[f"{way}-{size}"]) for size in GROWTH if f"{way}-{size}" in results]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def step(time: StepTime) -> str:
    """A median with its 99th percentile."""
    return "-" if time.median is None or time.p99 is None else f"{time.median:.2f} ({time.p99:.2f})"


def mebibytes(value: object) -> str:
    """Memory."""
    return f"{value / 2**20:.0f}" if isinstance(value, int) else "-"
