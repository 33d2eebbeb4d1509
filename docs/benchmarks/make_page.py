"""Measure this machine with ``derain bench``, and write README.md, its pictures and schema.json beside this file.

    python docs/benchmarks/make_page.py [NAME ...] [--frames N] [--page-only]

NAME is that of a result, to measure only that one again; ``make bench`` measures all. Every figure of the page comes
from the JSON files in results/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
from matplotlib.figure import Figure

from derain.demo import make_clip
from derain.files import atomic_path
from derain.runtime.bench.plot import COLOURS, plain_ticks, plot_result
from derain.runtime.bench.schema import BenchResult, Candidate, StepTime, read_result
from derain.runtime.bench.tables import machine_lines
from derain.runtime.live.sinks import Encoder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
SIZES = ("1280x720", "1920x1080")
GROWTH = ("640x360", "1280x720", "1920x1080", "3840x2160", "7680x4320")
_BOTH = ("nano", "edge", "--backend", "onnxruntime", "--backend", "openvino")
_CLIP = "rain-1280x720.mp4"
_CLIP_FRAMES = 100
_FEWER = 20  # frames of pictures larger than 1920 x 1080: each takes seconds


def commands(frames: int, clip: Path) -> dict[str, list[str]]:
    """Name of a result -> arguments of ``derain bench``."""
    timed = ["--frames", str(frames), "--warmup", str(max(1, min(20, frames // 10)))]
    runs = {f"cpu-{size}": [*_BOTH, "--threads", "1", "--threads", "2", "--size", size, *timed] for size in SIZES}
    runs["end-to-end"] = ["nano", "edge", "--backend", "openvino", "--input", str(clip), *timed]
    runs["streams"] = ["nano", "--backend", "openvino", "--streams", "1,2,4,8", *timed]
    for size in GROWTH:
        few = timed if size in GROWTH[:3] else ["--frames", str(min(frames, _FEWER)), "--warmup", "1"]
        common = ["nano", "--backend", "openvino", "--size", size, *few]
        runs[f"whole-{size}"] = common
        if size not in GROWTH[:2]:  # smaller frames fit into one tile
            runs[f"tiles-{size}"] = [*common, "--tile", "1024"]
    return runs


def measure(frames: int, names: Sequence[str]) -> list[str]:
    """Run the commands of those names, all where there is none; a result is replaced when its run has ended well.

    Returns:
        The names of those that failed: the largest frames may need more memory than there is.
    """
    failed = []
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, _CLIP)
        make_video(clip)
        for name, arguments in commands(frames, clip).items():
            if names and name not in names:
                continue
            target = RESULTS / f"{name}.json"
            print(f"--- {name}", flush=True)
            command = [sys.executable, "-m", "derain", "bench", *arguments, "--json", str(target.relative_to(ROOT))]
            if subprocess.run(command, cwd=ROOT, check=False).returncode:
                failed.append(name)
            else:
                hide_folder(target, folder)
    return failed


def make_video(path: Path) -> None:
    """The demonstration's clip, enlarged to 1280 x 720, as H.264."""
    encoder = Encoder(path)
    for index, picture in enumerate(make_clip(_CLIP_FRAMES).rainy):
        encoder.write(cv2.resize(picture, (1280, 720)), index / 25)
    encoder.close()


def hide_folder(result: Path, folder: str) -> None:
    """The clip lies in a folder whose name says nothing to a reader."""
    text = result.read_text(encoding="utf-8").replace(f"{folder}/", "")
    with atomic_path(result) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_results() -> dict[str, BenchResult]:
    """All results by name."""
    return {path.stem: read_result(path) for path in sorted(RESULTS.glob("*.json"))}


def page(results: dict[str, BenchResult]) -> str:
    """The text of README.md; what was not measured is said to be so."""
    parts = [(HERE / "introduction.md").read_text(encoding="utf-8")]
    for size in SIZES:
        picture = f"![latency and quality at {size}](cpu-{size}.png)"
        parts += section(f"{size}: models, backends, threads", results.get(f"cpu-{size}"), latency_table, picture)
    parts += section("From file to file", results.get("end-to-end"), end_to_end_table, _END_TO_END)
    picture = "![throughput against streams](streams.png)"
    parts += section("Several streams", results.get("streams"), streams_table, f"{_STREAMS}\n\n{picture}")
    parts.append("## Cost against pixels")
    grown = growth_table(results)
    parts += [_PIXELS, grown, "![cost against pixels](growth.png)"] if grown else [_NOT_MEASURED]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def section(title: str, result: BenchResult | None, body: Callable[[BenchResult], str], about: str) -> list[str]:
    """A heading, what the figures are, where they come from, and their table."""
    if result is None:
        return [f"## {title}", _NOT_MEASURED]
    return [f"## {title}", about, head(result), body(result)]


_NOT_MEASURED = "Not measured yet: `make bench`."
_END_TO_END = """A clip of 1280x720 read, derained and written as H.264; the three stages run side by side and share the
CPU. Beside it, in the same run: array in, array out."""
_STREAMS = """Each stream always has a frame ready; one model serves all in turns. Fairness: frames of the stream with
fewest to that with most. Age: from a frame being ready to its result being delivered, its wait for its turn included;
the worst stream's."""
_PIXELS = """`nano`, whole frames and tiles of 1024 pixels. Peak: largest resident set of the process, Python, two input
frames and the result included."""


def head(result: BenchResult) -> str:
    """Command, machine and date, and what the figures suffer from."""
    warnings = "".join(f"\n- Beware: {warning}." for warning in result.warnings)
    return f"```\n{shown(result.command)}\n```\n\n{where(result)}\n{warnings}"


def where(result: BenchResult) -> str:
    """Date and machine."""
    return f"{result.date[:10]}. {'. '.join(machine_lines(result))}."


def shown(command: str) -> str:
    """A command without the file that it writes."""
    return command.partition(" --json ")[0]


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
            mebibytes(item),
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


def growth_table(results: dict[str, BenchResult]) -> str:
    """One row for each size and way, each a run of its own (the machine is the last one's); empty without any."""
    rows = []
    for way in ("whole", "tiles"):
        for size, result in _grown(results, way):
            (item,) = result.candidates
            load = "" if result.before is None else f"{result.before.load_average.value}"
            times = f"{item.latency.p50:.0f}", f"{item.latency.p99:.0f}"
            command = f"`{shown(result.command)}`"
            rows.append((size, way, *times, mebibytes(item), str(item.latency.frames), load, command))
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


def mebibytes(item: Candidate) -> str:
    """Peak memory."""
    value = item.memory.peak_bytes.value
    return f"{value / 2**20:.0f}" if isinstance(value, int) else "-"


def write() -> None:
    """README.md, pictures and schema from the results."""
    results = read_results()
    (HERE / "schema.json").write_text(json.dumps(BenchResult.model_json_schema(), indent=1) + "\n", encoding="utf-8")
    for name in (*(f"cpu-{size}" for size in SIZES), "streams"):
        if name in results:
            plot_result(results[name], HERE / f"{name}.png")
    if growth_table(results):
        draw_growth(results, HERE / "growth.png")
    (HERE / "README.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="results to measure; all by default")
    parser.add_argument("--frames", type=int, default=200, help="frames to time of each candidate")
    parser.add_argument("--page-only", action="store_true", help="only write the page from the results that are there")
    options = parser.parse_args()
    unknown = set(options.names) - commands(1, Path()).keys()
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(commands(1, Path()))}")
    failures = [] if options.page_only else measure(options.frames, options.names)
    write()
    if failures:
        sys.exit(f"Failed: {', '.join(failures)}")
