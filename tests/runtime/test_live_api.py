"""The pipeline as applications use it, and the command with live options."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clips import REGULAR, frames_of, make_video, sound_of, times_of
from standin import expected, save_model

from derain.errors import MediaError, UsageError
from derain.runtime.live.addresses import parse_address
from derain.runtime.live.api import Pipeline
from derain.runtime.live.replay import Replay
from derain.runtime.media.items import Frame


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "standin.onnx")


def test_files_lose_nothing(tmp_path: Path, model: Path) -> None:
    sources = {name: str(make_video(tmp_path / f"{name}.mp4")) for name in ("a", "b")}
    seen: dict[str, list[int]] = {"a": [], "b": []}
    with Pipeline(model, sources, backend="onnxruntime", threads=1, rain_maps=True, gate="always") as pipeline:
        for result in pipeline:
            seen[result.stream].append(result.index)
            assert np.abs(result.clean.astype(int) - expected(result.before)).max() <= 1
            assert result.rain is not None
            assert result.intensity is not None
            assert result.seconds == pytest.approx(REGULAR[result.index] / 90000)
        reports = pipeline.reports()
    assert seen == {"a": list(range(24)), "b": list(range(24))}
    assert [(report.state, report.dropped) for report in reports] == [("ended", {})] * 2


def test_async(tmp_path: Path, model: Path) -> None:
    clip = make_video(tmp_path / "a.mp4")

    async def use() -> tuple[list[int], int]:
        ticks = 0

        async def other() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)

        task = asyncio.create_task(other())
        async with Pipeline(model, str(clip), backend="onnxruntime", threads=1) as pipeline:
            found = [result.index async for result in pipeline]
        task.cancel()
        return found, ticks

    indices, ticks = asyncio.run(use())
    assert indices == list(range(24))
    assert ticks > 3, "the event loop was never blocked"


def test_leaving_early_ends_everything(tmp_path: Path, model: Path) -> None:
    clip = make_video(tmp_path / "a.mp4", range(0, 3600 * 200, 3600))
    with Pipeline(model, {"a": str(clip)}, backend="onnxruntime", threads=1) as pipeline:
        first = next(iter(pipeline))
    assert first.index == 0
    assert pipeline.reports()[0].state == "ended"
    assert pipeline.reports()[0].delivered < 20


def test_streams_that_give_nothing_are_an_error(tmp_path: Path, model: Path) -> None:
    clip = make_video(tmp_path / "a.mp4")
    with (
        pytest.raises(MediaError, match=r"bad: .*none\.mp4' cannot be opened"),
        Pipeline(model, {"bad": str(tmp_path / "none.mp4")}, backend="onnxruntime", threads=1) as pipeline,
    ):
        list(pipeline)
    sources = {"bad": str(tmp_path / "none.mp4"), "good": str(clip)}
    with Pipeline(model, sources, backend="onnxruntime", threads=1) as pipeline:
        assert len(list(pipeline)) == 24
        assert [report.state for report in pipeline.reports()] == ["failed", "ended"]


def test_sources_that_make_no_sense(model: Path) -> None:
    with pytest.raises(UsageError, match="scheme 'gopher'"):
        Pipeline(model, {"a": "gopher://x"})


def test_a_file_replayed_like_a_camera(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "a.mp4")
    now, frames = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    with Replay(parse_address(str(clip)).open, sleep=sleep, now=lambda: now) as replay:
        for item in replay:
            assert isinstance(item, Frame)
            frames.append((item.index, now))
            if len(frames) == 50:
                break
    assert [index for index, _ in frames] == list(range(50))
    assert frames[23][1] == pytest.approx(23 / 25)
    assert frames[24][1] == pytest.approx(23 / 25), "the next round begins at once"
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError), Replay(parse_address(str(tmp_path / "empty")).open) as replay:
        next(iter(replay))


def derain(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "derain", "run", *map(str, arguments), "--backend", "onnxruntime", "--threads", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_command_with_two_files_a_gate_and_a_log(tmp_path: Path, model: Path) -> None:
    clips = [make_video(tmp_path / f"{name}.mp4", sound="aac") for name in ("a", "b")]
    log = tmp_path / "rain.jsonl"
    done = derain(model, *clips, "-o", tmp_path / "{name}.out.mp4", "--gate", "always", "--rain-log", log)
    assert done.returncode == 0, done.stderr
    for clip in clips:
        out = clip.with_suffix(".out.mp4")
        assert times_of(out) == times_of(clip)
        assert sound_of(out) == sound_of(clip)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["stream"] for line in lines} == {"a", "b"}
    assert len(lines) == 48
    assert all(0 <= line["rain"] <= 1 for line in lines)
    again = derain(model, *clips, "-o", tmp_path / "{name}.out.mp4")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert derain(model, *clips, "-o", tmp_path / "one.mp4").returncode == 2


def test_a_broken_file_among_several(tmp_path: Path, model: Path) -> None:
    clips = [make_video(tmp_path / f"{name}.mp4") for name in ("a", "b", "c")]
    clips[1].write_bytes(b"this is no video")
    log = tmp_path / "logs" / "rain.csv"
    done = derain(model, f"first={clips[0]}", *clips[1:], "-o", f"{tmp_path}/out/", "--gate", "auto", "--rain-log", log)
    assert done.returncode == 1
    assert "b.mp4' cannot be read as a video" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["c.mp4", "first.mp4"]
    lines = log.read_text().splitlines()
    assert lines[0] == "time,stream,frame,seconds,rain,gated"
    assert len(lines) == 1 + 2 * 24


def test_a_log_that_cannot_be_written_is_told_and_the_picture_goes_on(tmp_path: Path, model: Path) -> None:
    clip = make_video(tmp_path / "a.mp4")
    done = derain(model, clip, "-o", tmp_path / "out.mp4", "--gate", "always", "--rain-log", "/dev/full")
    assert done.returncode == 1
    assert "The rain log '/dev/full' cannot be written" in done.stderr
    assert len(frames_of(tmp_path / "out.mp4")) == 24


def test_a_preview_without_an_address_begins_nothing(tmp_path: Path, model: Path) -> None:
    clip = make_video(tmp_path / "a.mp4")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = derain(model, clip, "-o", tmp_path / "out.mp4", "--preview", "--preview-address", address)
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert list(tmp_path.glob("out*")) == []


def test_command_gates_a_file_job(tmp_path: Path, model: Path) -> None:
    """The stand-in's attention is the brightness, so bright frames are rain, and black ones pass bit for bit."""
    folder = tmp_path / "in"
    folder.mkdir()
    from derain.images import read_image, write_image

    dark = np.zeros((20, 30, 3), np.uint8)
    dark[0, 0] = 7  # the blur of the stand-in would change it
    write_image(folder / "dark.png", dark)
    done = derain(model, folder, "-o", tmp_path / "out", "--gate", "auto", "--rain-log", "-")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "dark.png"), dark)
    assert json.loads(done.stdout.splitlines()[0])["gated"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.mp4"], "Nothing would be done"),
        (["x.mp4", "--rain-log", "l"], "needs a rain gate"),
        (["x.mp4", "-o", "y.mp4", "--gate", "maybe"], "--gate is 'maybe'"),
        (["rtsp://h/x", "-o", "y.mp4", "--policy", "none"], "--policy is 'none'"),
        (["rtsp://h/x", "-o", "y.mp4", "--attention"], "rain maps of files only"),
        (["rtsp://h/x", "--preview", "--preview-address", "here"], "HOST:PORT"),
        (["rtsp://h/x", "-o", "y.mp4", "--preview-address", "here:1"], "Add --preview"),
        (["rtsp://h/x", "-o", "y.mp4", "--codec", "mpeg2"], "--codec is 'mpeg2'"),
        (["rtsp://h/x", "-o", "y.mp4", "--crf", "60"], "crf is 60"),
        (["rtsp://h/x", "rtsp://g/x", "-o", "y.mp4"], "2 streams would write"),
        (["x.mp4", "-o", "y.mp4", "--policy", "drop-newest"], "no frame of a file is dropped"),
        (["x.mp4", "-o", "y.mp4", "--once"], "a file is read once"),
        (["x.mp4", "-o", "null:"], "'x.mp4' does not exist"),
        (["x.mp4", "y.mp4", "-o", "{name}.out.mp4"], "'x.mp4' does not exist"),
    ],
)
def test_commands_that_make_no_sense(model: Path, arguments: list[str], message: str) -> None:
    from typer import Typer
    from typer.testing import CliRunner

    from derain.runtime.commands import run

    app = Typer()
    app.command()(run)
    result = CliRunner().invoke(app, [str(model), *arguments, "--backend", "onnxruntime", "--threads", "1"])
    assert message in str(result.exception), result.output


def test_sigterm_drains_a_live_recording(tmp_path: Path, model: Path) -> None:
    clip = make_video(tmp_path / "a.mp4", range(0, 3600 * 100, 3600))
    out = tmp_path / "out.mp4"
    arguments = ["run", model, clip, "--preview", "--preview-address", "127.0.0.1:0", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "derain", *map(str, arguments), "--backend", "onnxruntime", "-o", str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / "out.partial.mp4"
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 2000):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert "Preview: http://127.0.0.1:" in stderr
    assert process.returncode in (143, 0), stderr
    assert not partial.exists()
    assert 0 < len(frames_of(out)) <= 100
    assert f"{len(frames_of(out))} of" in stdout
