"""A real RTSP server (GStreamer's), killed and started again in the middle; and a disk that is really full."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rtsp_servers import camera, free_port, python_with_server
from viewers import Synthetic, brighter

from derain.runtime.live.addresses import parse_address
from derain.runtime.live.encoder import Encoder
from derain.runtime.live.run import LiveRun
from derain.runtime.live.stream import Reconnect, StreamReport, StreamSpec
from derain.runtime.media.items import Frame
from derain.runtime.media.video_reader import VideoReader
from derain.runtime.pipeline import Derained

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def python() -> str:
    found = python_with_server()
    if found is None:
        pytest.skip("GStreamer's RTSP server and its Python bindings are not installed")
    return found


def until(run: LiveRun, reached: Callable[[StreamReport], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached(run.reports()[0]):
        assert time.monotonic() < end, run.reports()
        time.sleep(0.02)


def test_a_killed_server_is_found_again_with_another_resolution(python: str) -> None:
    port = free_port()
    seen: list[tuple[tuple[int, ...], int]] = []

    def deliver(derained: Derained, seconds: float) -> None:
        seen.append((derained.clean.shape[:2], int(np.argmax(derained.clean.mean(axis=(0, 1))))))

    address = parse_address(f"rtsp://127.0.0.1:{port}/camera")
    spec = StreamSpec(
        "camera",
        address.open,
        lambda frame: Derained(frame, frame.pixels),
        deliver,
        reconnect=Reconnect(first=0.2, most=1.0, stall=3.0),
    )
    other = StreamSpec("other", lambda: Synthetic(64, 48), brighter)
    run = LiveRun([spec, other])
    with camera(python, port):
        run.start()
        until(run, lambda report: report.delivered >= 20)
    until(run, lambda report: report.state != "live")
    others = run.reports()[1].delivered
    time.sleep(1)
    assert run.reports()[1].delivered > others, "the other stream goes on"
    before = len(seen)
    with camera(python, port, "blue", 192):
        until(run, lambda report: report.delivered >= before + 20)
        run.stop()
        assert run.wait(20)
    report = run.reports()[0]
    assert report.reconnections >= 1
    assert seen[0] == ((96, 128), 2)
    assert seen[-1] == ((96, 192), 0)


def test_a_frozen_server_is_left(python: str) -> None:
    """SIGSTOP: connections stay open and nothing comes."""
    port = free_port()
    address = parse_address(f"rtsp://127.0.0.1:{port}/camera")
    spec = StreamSpec("camera", address.open, lambda frame: Derained(frame, frame.pixels), reconnect=Reconnect(stall=1))
    run = LiveRun([spec], drain=3)
    with camera(python, port) as process:
        run.start()
        until(run, lambda report: report.delivered >= 10)
        process.send_signal(19)
        until(run, lambda report: report.state == "stalled" and report.reconnections == 1)
        count = run.reports()[0].delivered
        process.send_signal(18)
        until(run, lambda report: report.delivered >= count + 10)
        run.stop()
        assert run.wait(20)


def test_a_full_disk(tmp_path: Path) -> None:
    """A tmpfs of two megabytes: the recording ends with its reason and plays; the other stream goes on."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True, check=False
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("no permission to mount a tmpfs")
    try:
        sink = Encoder(small / "out.mp4", crf=10)
        noise = np.random.default_rng(0)

        def noisy(frame: Frame) -> Derained:
            return Derained(frame, noise.integers(0, 256, (192, 256, 3), np.uint8))

        recorded = StreamSpec(
            "recorded", lambda: Synthetic(64, 48), noisy, lambda d, seconds: sink.write(d.clean, seconds), sink.close
        )
        run = LiveRun([recorded, StreamSpec("other", lambda: Synthetic(64, 48), brighter)])
        run.start()
        until(run, lambda report: report.state == "failed")
        others = run.reports()[1].delivered
        time.sleep(1)
        assert run.reports()[1].delivered > others
        run.stop()
        assert run.wait(20)
        assert "cannot be written" in run.reports()[0].reason
        assert [path.name for path in small.iterdir()] == ["out.mp4"]
        with VideoReader(small / "out.mp4") as reader:
            assert sum(isinstance(item, Frame) for item in reader) > 5
    finally:
        subprocess.run(["umount", str(small)], check=True)
