"""A result of a benchmark as a file: its schema, hostile files, comparisons, trtexec's times, pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from derain.card import Quality
from derain.cli import app
from derain.errors import DataError
from derain.runtime.bench import schema
from derain.runtime.bench.compare import compare, differences
from derain.runtime.bench.plot import plot_result
from derain.runtime.bench.report import latency
from derain.runtime.bench.schema import (
    BenchResult,
    Candidate,
    Conditions,
    Machine,
    Memory,
    Reading,
    Split,
    StartUp,
    StepTime,
    read_result,
    write_result,
)
from derain.runtime.bench.tables import print_result

ROOT = Path(__file__).resolve().parents[2]
NONE = Reading(missing="made up")
STEP = StepTime(median=1.0, p99=2.0)


def candidate(seed: int = 0, level: float = 20.0, frames: int = 200, **changes: Any) -> Candidate:
    generator = np.random.default_rng(seed)
    samples = (level * (1 + generator.gamma(2, 0.01, frames))).tolist()
    fields: dict[str, Any] = {
        "model": "edge",
        "file": "edge.onnx",
        "sha256": "a" * 64,
        "precision": "float32",
        "backend": "onnxruntime",
        "device": "made up",
        "chosen": "asked for",
        "threads": 2,
        "start_up": StartUp(load_seconds=0.5, first_frame_ms=30, build_seconds=NONE),
        "warm_up_frames": 20,
        "warm_up_stable": True,
        "latency": latency([value / 1e3 for value in samples]),
        "frames_per_second": 1e3 / float(np.mean(samples)),
        "split": Split(copy_in=STEP, pre=STEP, inference=STEP, post=STEP, copy_out=STEP),
        "memory": Memory(peak_bytes=Reading(value=1 << 20), before_bytes=NONE),
        "samples_ms": samples,
    }
    return Candidate(**{**fields, **changes})


def result(*candidates: Candidate, **changes: Any) -> BenchResult:
    machine = Machine(
        cpu=Reading(value="Example"), architecture="x86_64", cores=Reading(value=2), cpus=2, memory_bytes=NONE,
        system="Linux", board=NONE, jetpack=NONE, gpu=NONE, gpu_driver=NONE, versions={"openvino": Reading(value="1")},
    )  # fmt: skip
    state = Conditions(
        load_average=Reading(value=0.1), busy_others=Reading(value=0.0), cpu_clock_mhz=NONE, cpu_clock_max_mhz=NONE,
        governor=NONE, gpu_clock_mhz=NONE, power_mode=NONE, jetson_clocks=NONE, temperatures={"all": NONE},
        cpu_throttled=NONE, gpu_throttled=NONE,
    )  # fmt: skip
    fields: dict[str, Any] = {
        "source": "derain", "derain_version": "0.1.0", "date": "2026-01-01T00:00:00+00:00", "command": "derain bench",
        "width": 64, "height": 48, "seed": 0, "machine": machine, "before": state, "after": state,
        "candidates": list(candidates) or [candidate()],
    }  # fmt: skip
    return BenchResult(**{**fields, **changes})


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, BenchResult], Path]:
    def call(name: str, document: BenchResult) -> Path:
        write_result(document, tmp_path / name)
        return tmp_path / name

    return call


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], env={"COLUMNS": "160"})


def test_the_schema_in_the_documentation_is_that_of_the_code() -> None:
    documented = json.loads((ROOT / "docs" / "benchmarks" / "schema.json").read_text(encoding="utf-8"))
    assert documented == BenchResult.model_json_schema(), "run: docs/benchmarks/make_page.py --page-only"


def test_a_result_survives_the_file(write: Callable[[str, BenchResult], Path]) -> None:
    quality = Quality(dataset="same", protocol="rgb", images=1, psnr=float("inf"), ssim=1, measured="export")
    whole = result(candidate(quality=[quality]))
    assert read_result(write("a.json", whole)) == whole


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "not valid at the document: .*derain bench --json"),
        ("{}", "not valid at source"),
        ('{"schema_version": 2}', "schema version 2"),
        ('{"source": "derain", "extra": 1}', "not valid at"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DataError, match=text):
        read_result(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["candidates"].clear(), "candidates"),
        (lambda d: d["candidates"][0]["samples_ms"].__setitem__(0, -1), "samples_ms"),
        (lambda d: d["candidates"][0]["samples_ms"].__setitem__(0, "NaN"), "samples_ms"),
        (lambda d: d.__setitem__("width", 10**9), "width"),
        (lambda d: d["before"]["governor"].update(value=None, missing=None), "governor"),
        (lambda d: d.__setitem__("command", "x" * 5000), "command"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, change: Callable[[dict[str, Any]], None], text: str) -> None:
    document = json.loads(result().model_dump_json())
    change(document)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=text):
        read_result(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_FILE_BYTES", 100)
    (tmp_path / "large.json").write_text("x" * 101)
    with pytest.raises(DataError, match="at most 100 bytes"):
        read_result(tmp_path / "large.json")


def test_a_change_of_ten_per_cent_and_none(write: Callable[[str, BenchResult], Path]) -> None:
    first = write("a.json", result(candidate(1), candidate(2, backend="openvino")))
    second = write("b.json", result(candidate(3, level=22), candidate(4, backend="openvino")))
    told = invoke("--compare", first, second, "--fail-if-slower", "5%")
    assert told.exit_code == 1
    assert "slower" in told.stdout
    assert "no difference beyond the noise" in told.stdout
    assert "edge, onnxruntime, 2 threads is 10" in told.stdout.replace("9.", "10.")
    assert invoke("--compare", first, second, "--fail-if-slower", "20").exit_code == 0
    assert invoke("--compare", second, first, "--fail-if-slower", "5%").exit_code == 0
    assert invoke("--compare", first, second).exit_code == 0


def test_a_comparison_fits_a_terminal_and_tells_what_the_results_warn_of(
    write: Callable[[str, BenchResult], Path],
) -> None:
    first = write("a.json", result(candidate(1), warnings=["the machine was busy"]))
    second = write("b.json", result(candidate(2)))
    told = CliRunner().invoke(app, ["bench", "--compare", str(first), str(second)], env={"COLUMNS": "80"})
    (row,) = [line for line in told.stdout.splitlines() if "%" in line and "onnxruntime" in line]
    assert re.search(r"edge, onnxruntime, 2 threads +[\d.]+ to [\d.]+ +[+-][\d.]+% +[+-][\d.]+% to [+-][\d.]+%", row)
    assert "a.json: the machine was busy" in told.stdout
    assert "b.json:" not in told.stdout


def test_a_narrow_terminal_cuts_no_figure(write: Callable[[str, BenchResult], Path]) -> None:
    console = Console(width=80, file=StringIO(), highlight=False)
    print_result(result(candidate(1, level=123456.0, model="a-model-of-a-long-name", tile=1024), candidate(2)), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert re.search(r"frames/s +p50 +p90 +p99 +max +ratio +95 % of it", text)


def test_what_differs_is_told_and_forbids_a_verdict(write: Callable[[str, BenchResult], Path]) -> None:
    ours = result()
    assert ours.machine is not None
    machine = ours.machine.model_copy(update={"cpu": Reading(value="Other")})
    theirs = result(candidate(sha256="b" * 64), width=128, machine=machine)
    forbidding, explaining = differences(ours, theirs)
    assert forbidding == ["frames of 64x48 and 128x48", "cpu: Example and Other"]
    assert explaining == ["the file of edge, onnxruntime, 2 threads"]
    files = write("a.json", ours), write("b.json", theirs)
    told = invoke("--compare", *files)
    assert told.exit_code == 0
    assert "Warning: not the same in both: cpu: Example and Other" in told.stdout
    refused = invoke("--compare", *files, "--fail-if-slower", "5%")
    assert refused.exit_code == 1
    assert "not of one machine and size" in refused.stderr


def test_other_versions_are_told() -> None:
    ours = result()
    assert ours.machine is not None
    machine = ours.machine.model_copy(update={"versions": {"openvino": Reading(value="2")}})
    assert differences(ours, result(machine=machine)) == ([], ["openvino: 1 and 2"])
    assert differences(ours, result(machine=None))[0] == ["a machine that is not known"]


def test_nothing_in_common_and_too_little_to_tell() -> None:
    with pytest.raises(DataError, match="at least one model with the same backend"):
        compare(result(), result(candidate(model="nano")))
    (short,) = compare(result(candidate(frames=5)), result())
    assert short.verdict == "too few frames to tell"


def test_wrong_comparisons_are_one_line(write: Callable[[str, BenchResult], Path], tmp_path: Path) -> None:
    good = write("a.json", result())
    for arguments, code, text in (
        (("--compare", good, tmp_path / "none.json"), 1, "none.json"),
        (("edge", "--compare", good, good), 2, "More was named than can be shown"),
        (("--compare", good, good, "--fail-if-slower", "much"), 2, "--fail-if-slower is 'much'"),
    ):
        told = invoke(*arguments)
        assert told.exit_code == code, told.output
        assert text in told.stderr
        assert len(told.stderr.strip().splitlines()) == 1


def times(count: int, copies: float) -> list[dict[str, float]]:
    """A file of trtexec --exportTimes, made from its documented fields."""
    return [
        {
            "startH2dMs": 3.0 * n, "endH2dMs": 3.0 * n + copies, "startComputeMs": 3.0 * n + copies,
            "endComputeMs": 3.0 * n + copies + 2, "h2dMs": copies, "computeMs": 2.0, "d2hMs": copies,
            "latencyMs": 2 + 2 * copies,
        }
        for n in range(count)
    ]  # fmt: skip


def test_times_of_trtexec(tmp_path: Path) -> None:
    path, json_path = tmp_path / "edge.engine.copies.json", tmp_path / "out.json"
    path.write_text(json.dumps(times(200, 0.5)))
    told = invoke("--from-trtexec", path, "--size", "1280x720", "--json", json_path)
    assert told.exit_code == 0, told.output
    assert "The machine is not known." in told.stdout
    found = read_result(json_path)
    (one,) = found.candidates
    assert (found.source, found.machine, found.width) == ("trtexec", None, 1280)
    assert (one.model, one.backend, one.sha256) == ("edge", "trtexec", None)
    assert (one.split.copy_in.median, one.split.inference.median, one.latency.p50) == (0.5, 2.0, 3.0)
    assert one.frames_per_second == pytest.approx(200 * 1000 / (3 * 199 + 2))
    path.write_text(json.dumps(times(200, 0.0)))
    assert invoke("--from-trtexec", path, "--json", json_path).exit_code == 0
    assert read_result(json_path).candidates[0].split.copy_in.note == "trtexec was told to leave it out"
    path.write_text("[]")
    refused = invoke("--from-trtexec", path)
    assert refused.exit_code == 1
    assert "edge.engine.copies.json" in refused.stderr


def test_a_picture_has_a_panel_for_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for name in ("draw_latency", "draw_quality", "draw_streams"):
        whole = getattr(__import__("derain.runtime.bench.plot", fromlist=[name]), name)

        def draw(axes: Any, candidates: Any, name: str = name, whole: Any = whole) -> None:
            drawn.append(name)
            whole(axes, candidates)

        monkeypatch.setattr(f"derain.runtime.bench.plot.{name}", draw)
    plot_result(result(), tmp_path / "plain.svg")
    assert drawn == ["draw_latency"]
    quality = Quality(dataset="rain", protocol="y_matlab", images=1, psnr=30, ssim=0.9, measured="export")
    other = quality.model_copy(update={"dataset": "fog"})
    streams = schema.Streams(
        streams=2, frames=10, seconds=1, frames_per_second=10, fairness=0.5, age_p50_ms=1, age_p99_ms=2
    )
    drawn.clear()
    both = result(candidate(quality=[other, quality], streams=[streams]), candidate(quality=[quality], threads=1))
    plot_result(both, tmp_path / "whole.svg")
    assert drawn == ["draw_latency", "draw_quality", "draw_streams"]
