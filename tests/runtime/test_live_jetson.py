"""Recordings by a Jetson's encoder: the pipeline with x264 in its place, and what machines without one are told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from clips import frames_of, scene

from derain.errors import MediaError, UsageError
from derain.runtime.live import jetson
from derain.runtime.live.outputs import open_sink


def has(element: str) -> bool:
    inspect = shutil.which("gst-inspect-1.0")
    return inspect is not None and subprocess.run([inspect, "--exists", element], check=False).returncode == 0


needs_x264 = pytest.mark.skipif(not has("x264enc"), reason="GStreamer's x264enc is not installed")


def test_what_the_encoder_is_asked_for() -> None:
    text = jetson.encode((1920, 1080), "h265", 30)
    assert "nvv4l2h265enc bitrate=6220800 " in text
    assert text.startswith("nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! ")
    assert text.endswith("h265parse")
    assert "bitrate=1000000 " in jetson.encode((64, 48), "h264", 30)


def test_machines_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if has("nvv4l2h264enc"):
        pytest.skip("this machine has the encoder")
    with pytest.raises(MediaError, match="no element 'nvv4l2h264enc'"):
        open_sink(f"jetson:{tmp_path}/out.mp4")
    board = tmp_path / "model"
    board.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    monkeypatch.setattr(jetson, "_BOARD", board)
    with pytest.raises(MediaError, match=r"Orin Nano Developer Kit', has no hardware encoder.*x264"):
        open_sink(f"jetson:{tmp_path}/out.mp4")
    with pytest.raises(UsageError, match="asked for 'av1'"):
        open_sink(f"jetson:{tmp_path}/out.mp4", "av1")
    with pytest.raises(UsageError, match="suffix"):
        open_sink(f"jetson:{tmp_path}/out.avi")


@needs_x264
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Frames of odd and of changing size; the file has its name when it is finished only."""
    monkeypatch.setattr(jetson, "require_encoder", lambda codec: None)
    monkeypatch.setattr(jetson, "encode", lambda *asked: "x264enc tune=zerolatency ! h264parse")
    sink = jetson.JetsonRecording(tmp_path / "a folder" / f"out{suffix}")
    for index, size in enumerate([(97, 63), (97, 63), (64, 48), (97, 63)]):
        sink.write(scene(index, *size), index / 30)
    assert [path.name for path in (tmp_path / "a folder").iterdir()] in ([], [f"out.partial{suffix}"])
    sink.close()
    assert [path.name for path in (tmp_path / "a folder").iterdir()] == [f"out{suffix}"]
    frames = frames_of(tmp_path / "a folder" / f"out{suffix}")
    assert [frame.shape for frame in frames] == [(64, 98, 3)] * 4
    assert np.abs(frames[3][:63, :97].astype(int) - scene(3, 97, 63)).mean() < 8


@needs_x264
def test_a_kill_leaves_a_playable_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetson, "require_encoder", lambda codec: None)
    monkeypatch.setattr(jetson, "encode", lambda *asked: "x264enc tune=zerolatency key-int-max=10 ! h264parse")
    monkeypatch.setattr(jetson, "_FRAGMENT_MILLISECONDS", 100)
    sink = jetson.JetsonRecording(tmp_path / "out.mp4")
    partial = tmp_path / "out.partial.mp4"
    index = 0
    while not partial.exists() or partial.stat().st_size < 40_000:
        sink.write(np.random.default_rng(index).integers(0, 256, (96, 128, 3), np.uint8), index / 30)
        index += 1
        assert index < 3000
    assert sink._push is not None
    sink._push._process.process.kill()
    assert len(frames_of(partial)) > 0

    def insist() -> None:
        for _ in range(100):
            sink.write(scene(0, 128, 96), 0.0)

    with pytest.raises(MediaError):
        insist()
