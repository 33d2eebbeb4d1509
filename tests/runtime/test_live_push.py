"""Results pushed to real servers: one that records over RTSP, one that receives RTMP, and one that goes and returns."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from clips import frames_of
from numpy.typing import NDArray
from rtsp_servers import free_port, python_with_server, recorder, rtmp_server

from derain.runtime.live.outputs import open_sink
from derain.runtime.live.sinks import LiveSink, Reopening
from derain.runtime.live.stream import SinkAwayError

pytestmark = pytest.mark.full

BLUE = (230, 40, 20)


def picture() -> NDArray[np.uint8]:
    return np.full((96, 128, 3), BLUE, np.uint8)


def push(sink: LiveSink, frames: int) -> int:
    """Frames at 50 a second, as they would come; how many of them arrived at a server."""
    arrived = 0
    for _ in range(frames):
        try:
            sink.write(picture(), time.monotonic())
            arrived += 1
        except SinkAwayError:
            pass
        time.sleep(0.02)
    return arrived


def test_rtsp_record(tmp_path: Path) -> None:
    """GStreamer's server in record mode: what was pushed over TCP is in its file, nearly all of it."""
    python = python_with_server()
    if python is None:
        pytest.skip("GStreamer's RTSP server and its Python bindings are not installed")
    port, file = free_port(), tmp_path / "recorded.h264"
    with recorder(python, port, str(file)):
        sink = open_sink(f"rtsp://127.0.0.1:{port}/camera")
        assert push(sink, 60) == 60
        end = time.monotonic() + 60
        sink.close()
        while not file.exists() or len(frames_of(file)) < 55:
            assert time.monotonic() < end, "the frames did not arrive"
            time.sleep(0.2)
    frames = frames_of(file)
    assert len(frames) <= 60
    assert all(frame.shape == (96, 128, 3) for frame in frames)
    np.testing.assert_allclose(frames[-1].mean(axis=(0, 1)), BLUE, atol=6)


def test_rtmp() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/front"
    with rtmp_server(url) as server:
        sink = open_sink(url)
        _push_until(sink, 40)
        sink.close()
        out, _ = server.communicate(timeout=60)
    lines = [line.split() for line in out.splitlines()]
    assert len(lines) >= 38
    assert {(line[0], line[1]) for line in lines} == {("128", "96")}
    np.testing.assert_allclose([float(value) for value in lines[-1][2:]], BLUE, atol=6)


def test_a_killed_server_that_comes_back_gets_the_stream_again() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/front"
    sink = open_sink(url)
    assert isinstance(sink, Reopening)
    with rtmp_server(url):
        _push_until(sink, 20)
    arrived = [push(sink, 1) for _ in range(200)]
    assert not arrived[-1], "the server was killed"
    with rtmp_server(url) as server:
        _push_until(sink, 20)
        sink.close()
        out, _ = server.communicate(timeout=60)
    assert len(out.splitlines()) >= 18


def _push_until(sink: LiveSink, frames: int, seconds: float = 60) -> None:
    """Push until that many frames arrived: the server may need a moment, and the sink waits between two attempts."""
    end, arrived = time.monotonic() + seconds, 0
    while arrived < frames:
        assert time.monotonic() < end, "the server was not reached"
        arrived += push(sink, 1)
