"""Measure this machine with ``derain bench``, and write README.md, its pictures and schema.json beside this file.

    python docs/benchmarks/make_page.py [NAME ...] [--frames N] [--minutes M] [--again] [--prenet DIR] [--page-only]

NAME is that of a result, to measure only that one again; ``make bench`` measures all. Every figure of the page comes
from the JSON files in results/, so that a run which was interrupted can be taken up, and the page made at any time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from measure import HERE, RESULTS, measure, steps
from page_tables import (
    draw_growth,
    end_to_end_table,
    growth_table,
    head,
    latency_table,
    length_table,
    ratios_text,
    streams_table,
)
from ratios import Ratios, read_ratios

from derain.files import atomic_path
from derain.runtime.bench.plot import plot_result
from derain.runtime.bench.schema import BenchResult, read_result

LATENCY = {
    "cpu-1280x720": "1280x720: models, backends",
    "one-thread-1280x720": "1280x720, one thread",
    "cpu-1920x1080": "1920x1080",
}
_RATIO_SECONDS = 80.0
_RATIO_MINUTES = 2.0


def read_results() -> dict[str, BenchResult]:
    """All results by name."""
    return {path.stem: read_result(path) for path in sorted(RESULTS.glob("*.json"))}


def page(results: dict[str, BenchResult], ratios: Ratios | None) -> str:
    """The text of README.md; what was not measured is said to be so."""
    parts = [(HERE / "introduction.md").read_text(encoding="utf-8")]
    for name, title in LATENCY.items():
        picture = f"![latency and quality](graphs/{name}.png)"
        parts += section(title, results.get(name), latency_table, picture)
    parts.append("## Against plain convolutions, PyTorch and PReNet")
    parts += [_NOT_MEASURED] if ratios is None else [_RATIOS, ratios_text(ratios)]
    parts += section("From file to file", results.get("end-to-end"), end_to_end_table, _END_TO_END)
    parts.append("## Long videos")
    long = length_table(results)
    parts += [_LONG, long] if long else [_NOT_MEASURED]
    picture = "![throughput against streams](graphs/streams.png)"
    parts += section("Several streams", results.get("streams"), streams_table, f"{_STREAMS}\n\n{picture}")
    parts.append("## Cost against pixels")
    grown = growth_table(results)
    parts += [_PIXELS, grown, "![cost against pixels](graphs/growth.png)"] if grown else [_NOT_MEASURED]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def section(title: str, result: BenchResult | None, body: Callable[[BenchResult], str], about: str) -> list[str]:
    """A heading, what the figures are, where they come from, and their table."""
    if result is None:
        return [f"## {title}", _NOT_MEASURED]
    return [f"## {title}", about, head(result), body(result)]


_NOT_MEASURED = "Not measured yet: `make bench`."
_END_TO_END = """A clip of 1280x720 read, derained and written as H.264; the three stages run side by side and share
the CPU. Beside it, in the same run: array in, array out."""
_STREAMS = """Each stream always has a frame ready; one model serves all in turns. Fairness: frames of the stream with
fewest to that with most. Age: from a frame being ready to its result being delivered, its wait for its turn included;
the worst stream's."""
_LONG = """`nano` from file to file, 640x360, by the number of frames. Peak: largest resident set of the process when
the file was done."""
_RATIOS = """One process, two threads, everything in turns: what the models cost beside their convolutions alone (a
stack of plain 3x3 convolutions of the model's width on its 1/4 grid, with as many multiplications), beside the same
network in PyTorch, and beside PReNet (Ren et al., CVPR 2019: the code, and the weights for Rain100L, of
[csdwren/PReNet](https://github.com/csdwren/PReNet); six recurrences, in PyTorch). Times: how many times as fast. What
is not convolution, and why: [cpu.md](cpu.md). PSNR and SSIM: Rain100L/test, 100 pictures, protocol y_matlab, the
models' as on their cards. PReNet's weights were trained on Rain100L alone, `nano` and `edge` on other data too."""
_PIXELS = """`nano`, whole frames and tiles of 1024 pixels. Peak: largest resident set of the process, Python, two
input frames and the result included."""


def write() -> None:
    """README.md, pictures and schema from the results."""
    results = read_results()
    graphs = HERE / "graphs"
    graphs.mkdir(exist_ok=True)
    (HERE / "schema.json").write_text(json.dumps(BenchResult.model_json_schema(), indent=1) + "\n", encoding="utf-8")
    for name in (*LATENCY, "streams"):
        if name in results:
            plot_result(results[name], graphs / f"{name}.png")
    if growth_table(results):
        draw_growth(results, graphs / "growth.png")
    with atomic_path(HERE / "README.md") as temporary:
        temporary.write_text(page(results, read_ratios()), encoding="utf-8")


def measure_ratios(prenet: Path | None) -> list[str]:
    """In a process of its own: its engines and PyTorch need their own threads; the name where it failed."""
    command = [sys.executable, str(HERE / "ratios.py"), "--seconds", f"{_RATIO_SECONDS:g}"]
    command += [] if prenet is None else ["--prenet", str(prenet)]
    return ["ratios"] if subprocess.run(command, check=False).returncode else []


def main() -> None:
    """Measure, and write the page, whatever happens meanwhile."""
    names = [step.name for step in steps(1)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(names)}, ratios")
    parser.add_argument("--frames", type=int, default=200, help="frames to time of each candidate")
    parser.add_argument("--minutes", type=float, default=15.0, help="for everything; fewer frames where they do not do")
    parser.add_argument("--again", action="store_true", help="also what was measured in the last hours")
    parser.add_argument("--prenet", type=Path, metavar="DIR", help="a checkout of github.com/csdwren/PReNet")
    parser.add_argument("--page-only", action="store_true", help="only write the page from the results that are there")
    options = parser.parse_args()
    unknown = set(options.names) - {*names, "ratios"}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(names)}, ratios")
    failed: list[str] = []
    begun = time.monotonic()
    try:
        if not options.page_only:
            print(
                f"Measuring for about {options.minutes:g} minutes: leave the machine alone. Ctrl-C keeps what is done."
            )
            wanted = [name for name in options.names if name != "ratios"]
            if wanted or not options.names:
                minutes = options.minutes - (0 if options.names else _RATIO_MINUTES)
                failed += measure(wanted, options.frames, minutes, options.again, lambda text: print(text, flush=True))
            if not options.names or "ratios" in options.names:
                print("ratios: against plain convolutions, PyTorch and PReNet", flush=True)
                failed += measure_ratios(options.prenet)
    except KeyboardInterrupt:
        failed.append("interrupted: make bench goes on where it was")
    finally:
        write()
        print(f"Wrote {HERE.name}/README.md after {(time.monotonic() - begun) / 60:.1f} minutes.")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
