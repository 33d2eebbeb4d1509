"""Addresses, and sources that are real pieces: FIFOs, HTTP, GStreamer processes."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clips import REGULAR, frames_of, make_video, scene, times_of

from derain.errors import DerainError, MediaError, UsageError
from derain.runtime.live.addresses import Address, parse_address, without_password
from derain.runtime.live.av_source import AvSource
from derain.runtime.live.gstreamer import GStreamerPush, GStreamerSource, csi_pipeline
from derain.runtime.live.run import LiveRun
from derain.runtime.live.sinks import GStreamerSink
from derain.runtime.live.stream import Reconnect, StreamReport, StreamSpec
from derain.runtime.media.items import Frame, Source
from derain.runtime.media.video_reader import VideoReader
from derain.runtime.pipeline import Derained

needs_gstreamer = pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="GStreamer is not installed")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("v4l2:///dev/video0", Address("video0", "v4l2", "/dev/video0")),
        ("front=v4l2:///dev/video2?size=1280x720&fps=30", Address("front", "v4l2", "/dev/video2", (1280, 720), 30)),
        ("csi://0", Address("csi0", "csi", "0")),
        ("csi://1?fps=60", Address("csi1", "csi", "1", None, 60)),
        ("rtsp://me:secret@10.0.0.9:554/a?b=c", Address("10.0.0.9", "network", "rtsp://me:secret@10.0.0.9:554/a?b=c")),
        ("gate=http://cam/video.mjpg", Address("gate", "network", "http://cam/video.mjpg")),
        ("file:///a%20b/c.mp4", Address("c", "file", "/a b/c.mp4")),
        ("x=clip.mp4", Address("x", "file", "clip.mp4")),
        ("videotestsrc ! queue", Address("gst", "gstreamer", "videotestsrc ! queue")),
        ("t=videotestsrc pattern=ball ! queue", Address("t", "gstreamer", "videotestsrc pattern=ball ! queue")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert address.live == (address.kind != "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gopher://x", "scheme 'gopher'"),
        ("rtsp://", "names no host"),
        ("v4l2://video0", "names no device"),
        ("v4l2:///etc/passwd", "names no device"),
        ("csi://front", "names no sensor"),
        ("csi://0?size=big", "asks for the size 'big'"),
        ("csi://0?fps=0", "asks for the rate '0'"),
        ("csi://0?gain=3", "option 'gain'"),
    ],
)
def test_addresses_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_address(text)


def test_passwords_are_not_told() -> None:
    assert without_password("cannot open rtsp://me:pw@host/x now") == "cannot open rtsp://host/x now"
    with pytest.raises(MediaError) as caught, AvSource("rtsp://me:hidden@127.0.0.1:1/x"):
        pass
    assert "hidden" not in str(caught.value)


def test_csi_asks_for_what_was_asked() -> None:
    text = csi_pipeline(1, (1280, 720), 60)
    assert "nvarguscamerasrc sensor-id=1" in text
    assert "width=1280,height=720,framerate=60/1" in text


def brightness(frames: list[Frame]) -> list[int]:
    return [int(frame.pixels[frame.pixels.shape[0] // 2, frame.pixels.shape[1] // 2].mean()) for frame in frames]


def read(source: Source) -> list[Frame]:
    with source as opened:
        return [item for item in opened if isinstance(item, Frame)]


def same(frame: Frame) -> Derained:
    return Derained(frame, frame.pixels)


@pytest.fixture
def stream_bytes(tmp_path: Path) -> bytes:
    return make_video(tmp_path / "in.ts", REGULAR, options={"bf": "0", "g": "6"}).read_bytes()


def test_a_file_has_its_own_time(tmp_path: Path) -> None:
    path = make_video(tmp_path / "in.mp4")
    source = parse_address(f"file://{path}").open()
    assert isinstance(source, VideoReader)
    assert [frame.seconds for frame in read(source)] == pytest.approx([t / 90000 for t in REGULAR])


@pytest.fixture
def served(tmp_path: Path, stream_bytes: bytes) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/in.ts"
        server.shutdown()
        thread.join()


def test_http(served: str) -> None:
    frames = read(parse_address(served).open())
    assert len(frames) == len(REGULAR)
    expected = [int(scene(i)[32, 48].mean()) for i in range(len(REGULAR))]
    assert np.abs(np.subtract(brightness(frames), expected)).max() <= 2
    with pytest.raises(MediaError, match="cannot be opened"):
        read(parse_address(served.replace("in.ts", "none.ts")).open())


def test_a_file_behind_a_url_is_taken_whole_and_once(tmp_path: Path, served: str) -> None:
    """It has a length, so it can wait, and it would begin anew if it were opened again."""
    make_video(tmp_path / "in.mp4")
    delivered: list[tuple[int, float]] = []

    def slowly(derained: Derained, seconds: float) -> None:
        time.sleep(0.01)
        delivered.append((derained.frame.index, seconds))

    address = parse_address(served.replace("in.ts", "in.mp4"))
    run = LiveRun([StreamSpec("url", address.open, same, slowly)])
    run.start()
    assert run.wait(60)
    (report,) = run.reports()
    assert (report.state, report.dropped, report.reconnections) == ("ended", {}, 0)
    assert delivered == [(index, pytest.approx(time / 90000)) for index, time in enumerate(REGULAR)]


def test_a_changed_resolution_gives_frames_of_the_new_size(tmp_path: Path) -> None:
    parts = [
        make_video(tmp_path / f"{i}.ts", REGULAR[:6], size=size, options={"bf": "0"}).read_bytes()
        for i, size in enumerate([(96, 64), (64, 48)])
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    sizes = [frame.pixels.shape[:2] for frame in read(AvSource(f"file:{tmp_path / 'both.ts'}"))]
    assert sizes[0] == (64, 96)
    assert sizes[-1] == (48, 64)
    assert set(sizes) == {(64, 96), (48, 64)}


@pytest.mark.parametrize("seed", range(4))
def test_damaged_streams_end_or_tell(tmp_path: Path, stream_bytes: bytes, seed: int) -> None:
    generator = np.random.default_rng(seed)
    data = np.frombuffer(stream_bytes, np.uint8).copy()
    places = generator.integers(len(data) // 4, len(data), 40)
    data[places] ^= generator.integers(1, 256, 40, np.uint8)
    (tmp_path / "bad.ts").write_bytes(data[: generator.integers(len(data) // 2, len(data))].tobytes())
    source = AvSource(f"file:{tmp_path / 'bad.ts'}")
    frames: list[Frame] = []
    with suppress(DerainError):  # any other error fails the test
        frames = read(source)
    assert len(frames) <= len(REGULAR)


def run_for(spec: StreamSpec, enough: int, seconds: float = 60) -> StreamReport:
    """Run a stream until so many frames were delivered."""
    run = LiveRun([spec])
    run.start()
    end = time.monotonic() + seconds
    while run.reports()[0].delivered < enough and not run.wait(0.02) and time.monotonic() < end:
        pass
    run.stop()
    assert run.wait(20)
    return run.reports()[0]


def test_a_fifo_that_stalls_and_one_that_is_closed(tmp_path: Path) -> None:
    """The writer falls silent in the middle, goes on when the stall was seen, then leaves; another one comes."""
    frames = 150
    options = {"bf": "0", "g": "6"}
    stream_bytes = make_video(tmp_path / "in.ts", range(0, frames * 3600, 3600), options=options).read_bytes()
    fifo = tmp_path / "camera.ts"
    os.mkfifo(fifo)
    address = parse_address(str(fifo))
    assert address.kind == "fifo"
    reconnect = Reconnect(first=0.05, stall=0.4, leave=False)
    run = LiveRun([StreamSpec("fifo", address.open, same, policy="block", reconnect=reconnect)])

    def wait(reached: Callable[[StreamReport], bool]) -> None:
        end = time.monotonic() + 60
        while not reached(run.reports()[0]):
            assert time.monotonic() < end, run.reports()
            time.sleep(0.02)

    run.start()
    half = len(stream_bytes) * 2 // 3
    with fifo.open("wb", buffering=0) as writer:
        writer.write(stream_bytes[:half])
        wait(lambda report: report.state == "stalled")
        assert run.reports()[0].delivered > 0
        writer.write(stream_bytes[half:])
        wait(lambda report: report.state == "live")
    wait(lambda report: report.reconnections == 1)
    assert run.reports()[0].delivered >= frames - 2
    with fifo.open("wb", buffering=0) as writer:
        writer.write(stream_bytes)
    wait(lambda report: report.reconnections >= 2)
    run.stop()
    run.wait(20)
    assert run.reports()[0].delivered >= 2 * frames - 4


@needs_gstreamer
def test_a_gstreamer_pipeline(tmp_path: Path) -> None:
    caps = "video/x-raw,width=64,height=48,framerate=30/1"
    for number, (colour, bgr) in enumerate({"red": (0, 0, 255), "blue": (255, 0, 0), "white": (255, 255, 255)}.items()):
        frames = read(parse_address(f"videotestsrc pattern={colour} num-buffers=5 ! {caps}").open())
        assert len(frames) == 5, number
        assert np.abs(frames[-1].pixels.astype(int) - bgr).max() <= 3, colour


@needs_gstreamer
def test_a_gstreamer_pipeline_that_fails_says_why() -> None:
    # What cannot be built will not do better later.
    with pytest.raises(UsageError, match=r"no element .nosuchsrc"):
        read(GStreamerSource("nosuchsrc ! queue"))
    with pytest.raises(MediaError, match=r"(?i)resource not found|no such file"):
        read(GStreamerSource("filesrc location=/nonexistent ! decodebin"))
    with pytest.raises(UsageError, match="cannot be read"):
        read(GStreamerSource("videotestsrc ! 'queue"))


@needs_gstreamer
def test_a_gstreamer_process_that_hangs_is_replaced() -> None:
    """Each process falls silent after ten frames; it is ended, and the next one starts."""
    text = "videotestsrc num-buffers=10 ! video/x-raw,width=32,height=32,framerate=30/1 ! identity eos-after=9000"
    silent = text.replace("num-buffers=10", "") + " ! valve name=v drop=false ! identity sleep-time=0"
    hanging = silent.replace("identity eos-after=9000", "identity sleep-time=3000000")
    made: list[GStreamerSource] = []

    def make() -> Source:
        made.append(GStreamerSource(hanging if not made else text))
        return made[-1]

    spec = StreamSpec("gst", make, same, policy="block", reconnect=Reconnect(first=0.05, stall=0.7))
    report = run_for(spec, 10)
    assert len(made) >= 2
    assert report.delivered >= 10
    assert made[0]._process.process.wait(10) is not None


@needs_gstreamer
@pytest.mark.parametrize("size", [(96, 64), (98, 62), (1282, 66)])
def test_pushing_into_gstreamer(tmp_path: Path, size: tuple[int, int]) -> None:
    """Whatever the width: GStreamer fills rows up, and colours are right in BT.601 and in BT.709."""
    out = tmp_path / "out.avi"
    push = GStreamerPush(f"video/x-raw,format=BGR ! avimux ! filesink location={out}", size)
    for index in range(6):
        push.write(scene(index, *size))
    push.close()
    frames = frames_of(out)
    assert len(frames) == 6
    assert np.abs(frames[3].astype(int) - scene(3, *size)).mean() < 3


@needs_gstreamer
def test_a_gstreamer_sink_takes_any_size_and_keeps_a_files_times(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    sink = GStreamerSink(f"vp8enc deadline=1 ! matroskamux ! filesink location={out}", live=False)
    times = [7.0, 7.04, 7.2, 7.21, 9.5]
    for index, seconds in enumerate(times):
        sink.write(scene(index, 97, 63), seconds)
    sink.close()
    np.testing.assert_allclose([float(time) for time in times_of(out)], np.subtract(times, 7), atol=2e-3)
    assert np.abs(frames_of(out)[3][:63, :97].astype(int) - scene(3, 97, 63)).mean() < 6
    sizes = GStreamerSink(f"jpegenc ! multifilesink location={tmp_path}/%d.jpg")
    sizes.write(scene(0, 64, 48), 0.0)
    sizes.write(scene(0, 96, 64), 0.0)
    sizes.close()
    assert frames_of(tmp_path / "0.jpg")[0].shape == (64, 96, 3)


@needs_gstreamer
def test_live_pictures_have_the_time_they_are_written(tmp_path: Path) -> None:
    """A sink that waits for a picture's time must show it at once, and a file must be as long as it took."""
    out = tmp_path / "out.mkv"
    push = GStreamerPush(f"vp8enc deadline=1 ! matroskamux ! filesink location={out}", (96, 64))
    while push._playing is None:
        push.write(scene(0))
        time.sleep(0.02)
    before = time.monotonic() - push._playing
    push.write(scene(1))
    time.sleep(0.3)
    push.write(scene(2))
    push.close()
    second, third = (float(t) for t in times_of(out)[-2:])
    assert second == pytest.approx(before, abs=0.1)
    assert 0.3 <= third - second < 10


@needs_gstreamer
def test_pipelines_that_take_nothing(tmp_path: Path) -> None:
    """One that cannot be built, one that fails, one that hangs."""
    wrong, failing = GStreamerPush("nosuchsink", (96, 64)), GStreamerPush("filesink location=/none/x", (96, 64))
    hanging = GStreamerPush("identity sleep-time=60000000 ! fakesink", (96, 64), patience=0.3)
    for push, kind, message in (
        (wrong, UsageError, "nosuchsink"),
        (failing, MediaError, "(?i)could not open file"),
        (hanging, MediaError, r"took nothing for 0\.3 s"),
    ):

        def insist(push: GStreamerPush = push) -> None:
            for _ in range(500):
                push.write(scene(0))

        with pytest.raises(kind, match=message):
            insist()
        with suppress(DerainError):
            push.close()
        assert push._process.process.poll() is not None
