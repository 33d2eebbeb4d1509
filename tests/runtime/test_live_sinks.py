"""Files that survive, servers that come back, and the log of the rain."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from clips import frames_of, scene, times_of

from derain.errors import MediaError, UsageError
from derain.images import read_image
from derain.runtime.live.encoder import Encoder
from derain.runtime.live.outputs import open_sink, output_of, require_free, require_places
from derain.runtime.live.rain_log import FIELDS, RainLog
from derain.runtime.live.sinks import LiveSink, NullSink, PictureSequence, Reopening
from derain.runtime.live.stream import Reconnect, SinkAwayError
from derain.runtime.media.codecs import Codec
from derain.runtime.media.items import Frame, Picture
from derain.runtime.media.video_reader import VideoReader


@pytest.mark.parametrize(
    ("codec", "suffix"), [("h264", ".mp4"), ("h264", ".mkv"), ("h265", ".mp4"), ("av1", ".mp4"), ("h265", ".mov")]
)
def test_recordings_have_the_times_of_arrival(tmp_path: Path, codec: Codec, suffix: str) -> None:
    times = [5.0, 5.04, 5.2, 5.21, 6.0]
    sink = Encoder(tmp_path / f"out{suffix}", codec, crf=12)
    for index, seconds in enumerate(times):
        sink.write(scene(index, 128, 96), seconds)
    sink.close()
    assert [p.name for p in tmp_path.iterdir()] == [f"out{suffix}"]
    np.testing.assert_allclose(
        [float(t) for t in times_of(tmp_path / f"out{suffix}")], np.subtract(times, 5), atol=1e-3
    )
    for index, frame in enumerate(frames_of(tmp_path / f"out{suffix}")):
        assert np.abs(frame.astype(int) - scene(index, 128, 96)).mean() < 5


def test_a_recording_takes_frames_of_any_size_and_time(tmp_path: Path) -> None:
    sink = Encoder(tmp_path / "out.mp4")
    for index, (size, seconds) in enumerate([((97, 63), 1.0), ((64, 48), 1.0), ((97, 63), 0.5), ((200, 100), 2.0)]):
        sink.write(scene(index, *size), seconds)
    sink.close()
    frames = frames_of(tmp_path / "out.mp4")
    assert [frame.shape for frame in frames] == [(64, 98, 3)] * 4
    times = times_of(tmp_path / "out.mp4")
    assert times == sorted(set(times))


def test_a_kill_leaves_a_playable_recording(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np, pathlib\n"
        "from derain.runtime.live.encoder import Encoder\n"
        "sink = Encoder(pathlib.Path(sys.argv[1]))\n"
        "for i in range(400): sink.write(np.full((64, 96, 3), i % 250, np.uint8), i / 30)\n"
        "print('written', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out.mp4")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    process.kill()
    process.wait()
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial.mp4"]
    assert len(frames_of(tmp_path / "out.partial.mp4")) > 250


def test_what_an_earlier_kill_left_is_kept(tmp_path: Path) -> None:
    left = tmp_path / "deep" / "out.partial.mp4"
    left.parent.mkdir()
    left.write_bytes(b"the last minutes before a power cut")
    sink = Encoder(tmp_path / "deep" / "out.mp4")
    sink.write(scene(0), 0.0)
    assert (tmp_path / "deep" / "out.partial-2.mp4").exists()
    sink.close()
    assert left.read_bytes() == b"the last minutes before a power cut"
    assert len(frames_of(tmp_path / "deep" / "out.mp4")) == 1


def test_a_folder_that_is_missing_is_made_and_one_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    sink = Encoder(tmp_path / "new" / "folder" / "out.mp4")
    sink.write(scene(0), 0.0)
    assert (tmp_path / "new" / "folder" / "out.partial.mp4").exists(), "the file is there from the first frame on"
    sink.close()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MediaError, match="cannot be written"):
        Encoder(tmp_path / "file" / "out.mp4").write(scene(0), 0.0)
    with pytest.raises(UsageError, match="crf is 52"):
        Encoder(tmp_path / "out.mp4", crf=52)


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys, numpy as np, pathlib\n"
        "from derain.errors import MediaError\n"
        "from derain.runtime.live.encoder import Encoder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))\n"
        "sink = Encoder(pathlib.Path(sys.argv[1]))\n"
        "noise = np.random.default_rng(0)\n"
        "try:\n"
        "    for i in range(1000): sink.write(noise.integers(0, 256, (64, 96, 3), np.uint8), i / 30)\n"
        "    sys.exit('no error')\n"
        "except MediaError as error: print(error)\n"
        "try: sink.close()\n"
        "except MediaError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out.mp4")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "cannot be written" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert sum(isinstance(item, Frame) for item in reader) >= 30


class Flaky:
    """Fails while ``away`` is set."""

    away = True
    made = 0
    written = 0
    closed = 0

    def __init__(self) -> None:
        Flaky.made += 1

    def write(self, pixels: Picture, seconds: float) -> None:
        if Flaky.away:
            raise MediaError("Connection refused")
        Flaky.written += 1

    def close(self) -> None:
        Flaky.closed += 1


def test_a_sink_that_is_away_is_tried_again_later() -> None:
    now = 0.0

    def make() -> LiveSink:
        return Flaky()

    sink = Reopening(make, Reconnect(first=1, most=4), now=lambda: now)
    for step in range(100):
        now = step * 0.1
        Flaky.away = now < 8
        with suppress(SinkAwayError):
            sink.write(scene(0), now)
    assert Flaky.made == 4, "at 0, 1, 3 and 7 seconds it was away, at 11 it would be tried"
    now = 11.0
    sink.write(scene(0), now)
    assert (Flaky.made, Flaky.written, Flaky.closed) == (5, 1, 4)
    # One frame does not make a sink that works: the pauses go on growing until it has worked for a while.
    Flaky.away = True
    now = 12.0
    with pytest.raises(SinkAwayError):
        sink.write(scene(0), now)
    now = 15.9
    with pytest.raises(SinkAwayError):
        sink.write(scene(0), now)
    assert Flaky.made == 5
    Flaky.away = False
    for now in (16.0, 22.0):
        sink.write(scene(0), now)
    Flaky.away = True
    with pytest.raises(SinkAwayError):
        sink.write(scene(0), now)
    Flaky.away, now = False, 23.0
    sink.write(scene(0), now)
    sink.close()
    assert (Flaky.made, Flaky.closed) == (7, 7)


def test_which_sink_a_text_means(tmp_path: Path) -> None:
    assert isinstance(open_sink("null:"), NullSink)
    assert isinstance(open_sink(f"{tmp_path}/%06d.png"), PictureSequence)
    with pytest.raises(UsageError, match="no pattern"):
        open_sink(f"{tmp_path}/%s.png")
    assert output_of(f"{tmp_path}/new/", "front") == f"{tmp_path}/new/front.mp4"
    assert output_of(str(tmp_path), "front") == f"{tmp_path}/front.mp4"
    assert output_of("a/{name}.mkv", "front") == "a/front.mkv"
    for good in ("null:", "gst:autovideosink", "{name}.mp4", "new/"):
        require_places(good, 2)
    for bad in ("a.mp4", "rtmp://host/live", "x264enc ! fakesink"):
        with pytest.raises(UsageError, match="2 streams would write"):
            require_places(bad, 2)
    assert isinstance(open_sink(str(tmp_path / "a.mkv")), Encoder)
    for text in ("rtmp://host/live", "gst:autovideosink", "x264enc ! fakesink"):
        assert isinstance(open_sink(text), Reopening)
    with pytest.raises(UsageError, match=r"suffix '\.avi'"):
        open_sink(str(tmp_path / "a.avi"))
    with pytest.raises(UsageError, match="scheme 'gopher'"):
        open_sink("gopher://me:pw@host")


def test_what_exists_is_not_written_over(tmp_path: Path) -> None:
    for name in ("front.mp4", "00.png"):
        (tmp_path / name).write_bytes(b"")
    for output in (f"{tmp_path}/", f"{tmp_path}/{{name}}.mp4", f"jetson:{tmp_path}/front.mp4", f"{tmp_path}/%02d.png"):
        with pytest.raises(UsageError, match="exists already"):
            require_free(output, "front")
    for output in (f"{tmp_path}/{{name}}.mp4", "rtmp://host/front.mp4", f"{tmp_path}/%03d.png"):
        require_free(output, "rear")


def test_pictures_are_numbered(tmp_path: Path) -> None:
    sink = PictureSequence(f"{tmp_path}/out/%08d.png")
    for index in range(3):
        sink.write(scene(index), 0.0)
    sink.close()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:08d}.png" for i in range(3)]
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "00000002.png"), scene(2))


def test_rain_log() -> None:
    file = io.StringIO()
    log = RainLog(file)
    log.add("front", 3, 1.23456, 0.123456, False)
    log.add("front", 4, 2.0, None, True)
    first, second = (json.loads(line) for line in file.getvalue().splitlines())
    assert tuple(first) == FIELDS
    assert abs(datetime.fromisoformat(first.pop("time")) - datetime.now(timezone.utc)) < timedelta(minutes=5)
    assert first == {"stream": "front", "frame": 3, "seconds": 1.2346, "rain": 0.1235, "gated": False}
    assert second["rain"] is None
    assert second["gated"] is True


def test_rain_log_as_a_table() -> None:
    file = io.StringIO()
    log = RainLog(file, "csv")
    log.add("front", 3, 1.23456, 0.123456, False)
    log.add('odd "name", this', 4, 2.0, None, True)
    first, second = csv.DictReader(io.StringIO(file.getvalue()))
    assert tuple(first) == FIELDS
    assert (first["stream"], first["frame"], first["seconds"]) == ("front", "3", "1.2346")
    assert (first["rain"], first["gated"]) == ("0.1235", "0")
    assert (second["stream"], second["rain"], second["gated"]) == ('odd "name", this', "", "1")


@pytest.mark.parametrize("vital", [False, True])
def test_a_rain_log_on_a_full_disk(vital: bool, caplog: pytest.LogCaptureFixture) -> None:
    with Path("/dev/full").open("w") as file:
        log = RainLog(file, vital=vital)
        if vital:
            for _ in range(2):
                with pytest.raises(MediaError, match="No space left"):
                    log.add("front", 0, 0.0, 0.5, False)
        else:
            for _ in range(3):
                log.add("front", 0, 0.0, 0.5, False)
            assert [record.getMessage() for record in caplog.records] == [str(log.problem)]
        assert "/dev/full" in str(log.problem)
        log.close()
