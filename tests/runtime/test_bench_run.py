"""``derain bench``: what is measured in which order, on made-up candidates and on a small model in its own process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clips import make_video
from standin import card_of, save_model
from test_doctor import Machine
from typer.testing import CliRunner, Result

from derain.cli import app
from derain.errors import BackendError, UsageError
from derain.runtime.bench import run
from derain.runtime.bench.run import BenchOptions, run_bench
from derain.runtime.bench.schema import BenchResult, read_result
from derain.runtime.bench.subject import Opened, Spec, Steps, Subject, Timing, Usage, made_frames
from derain.runtime.bench.sweeps import BatchTime, StreamsTime, VideoTime
from derain.runtime.bench.worker import Remote
from derain.runtime.statistics import StageTime

MS = 1e-3


class Pretended:
    """A candidate whose times are known: 10 ms with one thread, 5 ms with two; and 2, 6 and 2 of 10 are its steps."""

    def __init__(self, spec: Spec, log: list[str]) -> None:
        self.spec = spec
        self._name = f"{spec.backend}-{spec.threads}"
        self._log = log
        self._cpu = 0.0

    def open(self) -> Opened:
        self._note("open")
        return Opened("pretended", self.spec.threads or 1, 0.5, 0.02, None, 1000)

    def run(self) -> Timing:
        self._note("run")
        total = 10 * MS / (self.spec.threads or 1)
        self._cpu += total
        return Timing(total, 0.2 * total, 0.6 * total, 0.2 * total)

    def run_steps(self) -> Steps | None:
        return None

    def run_for(self, seconds: float) -> tuple[int, float]:
        return 100, seconds

    def run_batch(self, size: int) -> BatchTime:
        self._note(f"batch {size}")
        return BatchTime(None, "too large") if size > 2 else BatchTime(8 * MS * size, "")

    def run_streams(self, streams: int, frames: int, seconds: float | None) -> StreamsTime:
        self._note(f"streams {streams}" + ("" if seconds is None else f" for {seconds:g} s"))
        return StreamsTime([frames // streams] * (streams - 1) + [frames // streams // 2], 2.0, 0.1, 0.2)

    def run_video(self, path: Path) -> VideoTime:
        return VideoTime(12, 2.0, {"decode": StageTime(1.0, 2.0, 12.0)})

    def usage(self) -> Usage:
        return Usage(5000, self._cpu)

    def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        self._log.append(f"{self._name}: {what}")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("derain.runtime.bench.sequence.SETTLE_SECONDS", 0.0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "standin.onnx")


def pretend(model: Path, **options: Any) -> tuple[BenchResult, list[str]]:
    log: list[str] = []
    chosen = {"threads": (1, 2), "backends": ("onnxruntime",), "frames": 40, "warm_up": 10, "size": (64, 48), **options}
    system = Machine(files={"/proc/loadavg": "0.10 0.1 0.1 1/2 3"})
    result = run_bench(
        BenchOptions(models=[str(model)], **chosen), make=lambda spec: Pretended(spec, log), system=system
    )
    return result, log


def test_all_are_open_and_warm_before_the_first_frame_counts(model: Path) -> None:
    result, log = pretend(model)
    first, second = "onnxruntime-1", "onnxruntime-2"
    assert log[:2] == [f"{first}: open", f"{second}: open"]
    assert log[2:12] == [f"{first}: run"] * 10
    assert log[12:22] == [f"{second}: run"] * 10
    rounds = [log[start : start + 2] for start in range(22, 102, 2)]
    assert all(sorted(names) == [f"{first}: run", f"{second}: run"] for names in rounds)
    assert len({tuple(names) for names in rounds}) == 2, "the order must differ between rounds"
    assert sorted(log[102:]) == [f"{first}: close", f"{second}: close"]
    one, two = result.candidates
    assert (one.latency.p50, two.latency.p50) == (pytest.approx(10), pytest.approx(5))
    assert (one.frames_per_second, two.frames_per_second) == (pytest.approx(100), pytest.approx(200))
    assert (one.warm_up_frames, one.warm_up_stable) == (10, True)
    assert one.split.inference.median == pytest.approx(6)
    assert one.split.pre.note.startswith("in the graph")
    assert one.split.copy_in.median is None
    assert "own memory" in one.split.copy_in.note
    assert one.memory.peak_bytes.value == 5000
    assert one.start_up.load_seconds == 0.5
    assert one.start_up.build_seconds.missing


def test_files_of_one_name_and_what_is_named_twice(tmp_path: Path) -> None:
    for folder in ("new", "old"):
        (tmp_path / folder).mkdir()
    models = [save_model(tmp_path / folder / "edge.onnx") for folder in ("new", "old")]
    options = BenchOptions(
        models=[str(path) for path in (*models, models[0])], backends=("onnxruntime", "onnxruntime"), threads=(1, 2, 1)
    )
    found = [(spec.name, spec.backend, spec.threads) for spec in run.plan_candidates(options)]
    assert found == [
        (name, "onnxruntime", threads) for name in ("new/edge.onnx", "old/edge.onnx") for threads in (1, 2)
    ]


def test_float_models_are_converted_outside_the_graph(tmp_path: Path) -> None:
    result, _ = pretend(save_model(tmp_path / "float.onnx", "float"))
    split = result.candidates[0].split
    assert split.pre.note == split.post.note == "conversion between uint8 frames and the graph's ports"


def test_sweeps_come_after_the_frames(model: Path) -> None:
    result, log = pretend(model, batches=(1, 4), streams=(1, 3), frames=6)
    last = max(place for place, entry in enumerate(log) if entry.endswith(": run"))
    assert all(place > last for place, entry in enumerate(log) if "batch" in entry or "streams" in entry)
    one = result.candidates[0]
    assert [(item.size, item.refused) for item in one.batches] == [(1, ""), (4, "too large")]
    assert one.batches[0].frames_per_second == pytest.approx(125)
    assert [item.streams for item in one.streams] == [1, 3]
    assert one.streams[1].fairness == 0.5
    assert one.streams[1].frames_per_second == pytest.approx(5 / 2)
    assert any("only 6 frames" in warning for warning in result.warnings)


def test_a_limit_of_time_ends_each_part_early(model: Path) -> None:
    result, log = pretend(model, frames=10**9, warm_up=0, seconds=0.05, batches=(1,), streams=(1, 3))
    frames = [candidate.latency.frames for candidate in result.candidates]
    assert frames[0] == frames[1], "whole rounds"
    assert 1 <= frames[0] < 10**9
    assert len(result.candidates[0].samples_ms) == frames[0]
    assert "onnxruntime-1: streams 3 for 0.0125 s" in log
    assert any(f"only {frames[0]} frames" in warning for warning in result.warnings) == (frames[0] < 200)
    with pytest.raises(UsageError, match=r"--seconds is 0\. Expected above 0"):
        pretend(model, seconds=0.0)


def test_energy_of_a_frame(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Meter:
        source = "example"
        gpu_only = False

        def start(self) -> None: ...

        def stop(self) -> float | None:
            return 25.0

    monkeypatch.setattr(run, "find_meters", lambda system: ([Meter()], ""))
    (found,) = pretend(model)[0].candidates[0].energy
    assert (found.watts, found.joules_per_frame) == (5.0, 0.25)
    monkeypatch.setattr(Meter, "gpu_only", True)
    assert pretend(model)[0].candidates[0].energy == []
    monkeypatch.undo()
    assert "no RAPL" in (pretend(model)[0].candidates[0].energy_missing or "")


def test_a_busy_machine_is_told(model: Path) -> None:
    log: list[str] = []
    options = BenchOptions(models=[str(model)], backends=("onnxruntime",), size=(64, 48))
    busy = Machine(files={"/proc/loadavg": "900.0 1 1 1/2 3"})
    result = run_bench(options, make=lambda spec: Pretended(spec, log), system=busy)
    assert any("busy: load average 900.0" in warning for warning in result.warnings)


def test_candidates_are_closed_when_one_does_not_open(model: Path) -> None:
    log: list[str] = []

    class Broken(Pretended):
        def open(self) -> Opened:
            raise BackendError("no")

    with pytest.raises(BackendError):
        run_bench(
            BenchOptions(models=[str(model)], size=(64, 48)), make=lambda spec: Broken(spec, log), system=Machine()
        )
    assert [entry.split(": ")[1] for entry in log] == ["close"]


def test_a_subject_tells_the_graphs_time_from_the_rest(model: Path) -> None:
    card = card_of()
    spec = Spec("standin", model, card, "onnxruntime", "", 1, 160, 120)
    with Subject(spec) as subject:
        opened, timing = subject.open(), subject.run()
        assert opened.threads == 1
        assert timing.pre is not None
        assert timing.inference is not None
        assert timing.post is not None
        assert timing.pre + timing.inference + timing.post == pytest.approx(timing.total)
        assert timing.inference > 0
        assert subject.run_batch(2).seconds
        streams = subject.run_streams(2, 12, None)
        assert sum(streams.frames) == 12
        assert streams.seconds > 0
        short = subject.run_streams(2, 10**9, 0.001)
        assert 0 < sum(short.frames) < 10**9


def test_tiles_have_no_steps(model: Path) -> None:
    spec = Spec("standin", model, card_of(), "onnxruntime", "", None, 160, 120, tile=64)
    with Subject(spec) as subject:
        assert subject.open().threads >= 1
        assert subject.run()[1:] == (None, None, None)
        assert subject.run_batch(2).refused


def test_made_frames_differ_and_fill_the_size() -> None:
    first, second = made_frames(card_of(), 300, 1000)
    assert first.shape == second.shape == (300, 1000, 3)
    assert (first != second).any()
    assert first[-1].std() > 10


def test_a_process_of_its_own(model: Path) -> None:
    with Remote(Spec("standin", model, card_of(), "onnxruntime", "", 1, 64, 48)) as remote:
        opened = remote.open()
        assert opened.device.startswith("ONNX Runtime")
        assert remote.run().total > 0
        usage = remote.usage()
        assert usage.peak_bytes is not None
        assert usage.peak_bytes >= (opened.before_bytes or 0) > 0


def test_a_process_that_refuses_or_dies(model: Path) -> None:
    spec = Spec("standin", model, card_of(), "onnxruntime", "", 1, 64, 48, video=model)
    with Remote(spec) as remote:
        with pytest.raises(BackendError, match=r"standin\.onnx"):
            remote.open()
        assert remote.process_id is not None
        os.kill(remote.process_id, signal.SIGKILL)
        with pytest.raises(BackendError, match=r"ended \(SIGKILL\)"):
            remote.usage()


def test_a_parent_that_is_gone_is_no_traceback(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As after Ctrl-C, when the parent hangs up while a frame is being computed."""
    remote = Remote(Spec("standin", model, card_of(), "onnxruntime", "", 1, 1280, 720))
    remote.open()
    remote._connection.send(("run_for", (0.3,)))
    remote.close()
    assert remote._process.exitcode == 0
    assert capfd.readouterr().err == ""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)], env={"COLUMNS": "160"})


def test_the_command(model: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "rain.mp4", tuple(range(0, 6 * 3600, 3600)))
    json = tmp_path / "out.json"
    plot = tmp_path / "out.png"
    result = invoke(
        *(model, "--backend", "onnxruntime", "--threads", 1, "--input", video, "--frames", 12, "--warmup", 2),
        *("--batch", "1,2", "--streams", "1,2", "--json", json, "--plot", plot),
    )
    assert result.exit_code == 0, result.output
    assert "96x64, 12 frames" in result.stdout
    assert "from end to end" in result.stdout
    assert "MiB" in result.stdout.partition("from end to end")[2]
    found = read_result(json)
    assert (found.width, found.height) == (96, 64)
    (one,) = found.candidates
    assert len(one.samples_ms) == 12
    assert one.end_to_end is not None
    assert one.end_to_end.frames == 6
    assert one.end_to_end.stages.keys() == {"decode", "infer", "encode"}
    assert [item.streams for item in one.streams] == [1, 2]
    assert plot.read_bytes()[:4] == b"\x89PNG"


def bad(folder: Path) -> list[tuple[tuple[object, ...], int, str]]:
    model, text = folder / "standin.onnx", folder / "text.mp4"
    text.write_text("no video")
    return [
        ((), 2, "Nothing to measure was named"),
        (("nobody",), 1, "no model named 'nobody'"),
        ((model, "--backend", "abacus"), 2, "no backend 'abacus'"),
        ((model, "--frames", 0), 2, "--frames is 0"),
        ((model, "--warmup", -1), 2, "--warmup is -1"),
        ((model, "--threads", 0), 2, "--threads is 0"),
        ((model, "--size", "65536x65536"), 2, "--size is 65536x65536, 4295 megapixels"),
        ((model, "--size", "wide"), 2, "--size is 'wide'"),
        ((model, "--size", "64x48x2"), 2, "batches are measured with --batch"),
        ((model, "--batch", "1,0"), 2, "--batch is '1,0'"),
        ((model, "--streams", "two"), 2, "--streams is 'two'"),
        ((model, "--input", text), 1, "text.mp4"),
        ((model, "--input", folder / "none.mp4"), 1, "cannot be opened"),
        ((model, "--input", text, "--size", "64x48"), 2, "--size was given with --input"),
        ((model, "--plot", folder / "a.txt"), 2, "a .png, .svg or .pdf file"),
        ((model, "--json", folder), 2, "is a folder"),
        ((model, "--fail-if-slower", "5%"), 2, "without --compare"),
        ((model, "--tile", 3, "--backend", "onnxruntime", "--size", "64x48"), 2, "smaller than its overlap"),
    ]


@pytest.mark.parametrize("number", range(18))
def test_what_a_user_can_get_wrong_is_one_line(model: Path, tmp_path: Path, number: int) -> None:
    arguments, code, text = bad(tmp_path)[number]
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_no_model_is_opened_for_a_wrong_option(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: Spec) -> Pretended:
        raise AssertionError("opened")

    make: Callable[[Spec], Pretended] = refuse
    with pytest.raises(UsageError):
        run_bench(BenchOptions(models=[str(model)], frames=0), make=make, system=Machine())
