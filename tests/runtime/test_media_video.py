"""Video files in and out: times, sound, rotation, colours, and files that are broken."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import REGULAR, TIME_BASE, VARIABLE, frames_of, make_video, matrix_of, sound_of, times_of

from derain.errors import MediaError, UsageError
from derain.runtime.live.encoder import Encoder
from derain.runtime.media.codecs import Codec
from derain.runtime.media.items import Frame, Passenger
from derain.runtime.media.video_reader import VideoInfo, VideoReader
from derain.runtime.media.video_writer import VideoWriter


def copy(source: Path, target: Path, **options: Any) -> tuple[VideoReader, VideoWriter]:
    """Every item from a file into another."""
    with VideoReader(source) as reader, VideoWriter(target, reader.info, **options) as writer:
        for item in reader:
            if isinstance(item, Passenger):
                writer.carry(item)
            else:
                writer.write(item.pixels, item)
    return reader, writer


def read_frames(path: Path) -> tuple[VideoReader, list[Frame]]:
    with VideoReader(path) as reader:
        return reader, [item for item in reader if isinstance(item, Frame)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("times", [REGULAR, VARIABLE], ids=["regular", "variable"])
def test_times_are_exact(tmp_path: Path, suffix: str, times: tuple[int, ...]) -> None:
    source = make_video(tmp_path / f"in{suffix}", times)
    target = tmp_path / f"out{suffix}"
    reader, writer = copy(source, target)
    assert times_of(source) == [time * TIME_BASE for time in times]
    assert times_of(target) == times_of(source)
    assert reader.warnings == writer.warnings == []


@pytest.mark.parametrize("codec", ["h265", "av1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_other_codecs_keep_times_sound_and_pictures(tmp_path: Path, codec: Codec, suffix: str) -> None:
    source = make_video(tmp_path / "in.mp4", VARIABLE, size=(128, 96), sound="aac", rotation=90)
    target = tmp_path / f"out{suffix}"
    _, writer = copy(source, target, codec=codec, crf=8)
    assert writer.warnings == []
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        assert {"hevc": "h265"}.get(context.name, "av1") == codec
        assert context.codec_tag == {"h265.mp4": "hvc1", "av1.mp4": "av01"}.get(codec + suffix, context.codec_tag)
    moved = [after - before for before, after in zip(times_of(source), times_of(target), strict=True)]
    # AAC begins before zero, which Matroska does not know: there everything comes that much later, sound and picture.
    assert max(moved) - min(moved) <= (0 if suffix == ".mp4" else 0.001)
    assert abs(moved[0] - sound_of(target)[0][0] + sound_of(source)[0][0]) <= 0.001
    assert [data for _, data in sound_of(target)] == [data for _, data in sound_of(source)]
    assert matrix_of(target) == matrix_of(source)
    for before, after in zip(frames_of(source), frames_of(target), strict=True):
        assert np.abs(before.astype(int) - after).mean() < 4
    with pytest.raises(UsageError, match="crf is 64"):
        copy(source, tmp_path / "none.mp4", codec="av1", crf=64)


def policies() -> set[int]:
    return {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="it is root that SVT-AV1 may do this for")
def test_av1_does_not_make_threads_real_time(tmp_path: Path) -> None:
    assert policies() == {os.SCHED_OTHER}
    source = make_video(tmp_path / "in.mp4", REGULAR[:4], size=(128, 96))
    with VideoReader(source) as reader:
        frames = [item for item in reader if isinstance(item, Frame)]
        with VideoWriter(tmp_path / "out.mp4", reader.info, codec="av1") as writer:
            for frame in frames:
                writer.write(frame.pixels, frame)
                assert policies() == {os.SCHED_OTHER}
    live = Encoder(tmp_path / "live.mkv", "av1")
    live.write(frames[0].pixels, 0.0)
    assert policies() == {os.SCHED_OTHER}
    live.close()


def test_av1_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SVT_LOG", raising=False)
    copy(make_video(tmp_path / "in.mp4", REGULAR[:4], size=(128, 96)), tmp_path / "out.mp4", codec="av1")
    assert "Svt" not in capfd.readouterr().err


def test_times_in_matroska_are_whole_milliseconds(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", VARIABLE)
    copy(source, tmp_path / "out.mkv")
    errors = [abs(a - b) for a, b in zip(times_of(source), times_of(tmp_path / "out.mkv"), strict=True)]
    assert max(errors) <= 0.0005
    copy(tmp_path / "out.mkv", tmp_path / "back.mp4")
    assert times_of(tmp_path / "back.mp4") == times_of(tmp_path / "out.mkv")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_long_last_frame_stays_long(tmp_path: Path, suffix: str) -> None:
    # B-frames leave MP4 no clear length of the last frame, so the source has none, and the result some tolerance.
    source = make_video(tmp_path / "in.mp4", VARIABLE, options={"bf": "0"}, last=90 * 777)
    copy(source, tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        end = container.start_time + container.duration  # microseconds
    assert end / 1e6 == pytest.approx(VARIABLE[-1] / 90000 + 0.777, abs=0.1)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "aac"), (".mkv", "aac"), (".mkv", "pcm_s16le"), (".mov", "aac")]
)
def test_sound_is_bit_identical(tmp_path: Path, suffix: str, codec: str) -> None:
    source = make_video(tmp_path / f"in{suffix}", sound=codec)
    copy(source, tmp_path / f"out{suffix}")
    before, after = sound_of(source), sound_of(tmp_path / f"out{suffix}")
    assert len(before) > 20
    assert [data for _, data in after] == [data for _, data in before]
    assert [time for time, _ in after] == [time for time, _ in before]


def test_sound_the_format_cannot_hold(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", sound="wavpack")
    with pytest.raises(MediaError, match=r"\.mp4 has no place for the video's sound \('wavpack'\).*'out\.mkv'"):
        copy(source, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == [source]
    copy(source, tmp_path / "out.mkv")
    assert [data for _, data in sound_of(tmp_path / "out.mkv")] == [data for _, data in sound_of(source)]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_rotation(tmp_path: Path, suffix: str, rotation: int, mirrored: bool) -> None:
    source = make_video(tmp_path / f"in{suffix}", REGULAR[:3], rotation=rotation, mirrored=mirrored)
    reader, frames = read_frames(source)
    height, width = frames[0].pixels.shape[:2]
    assert (width, height) == ((64, 96) if rotation % 180 else (96, 64)) == (reader.info.width, reader.info.height)
    # A quarter turn counter-clockwise takes the red corner from the upper left to the lower left, and so on.
    corners = [(0, 0), (-1, 0), (-1, -1), (0, -1)]
    row, column = corners[rotation // 90]
    if mirrored:
        column = -1 - column
    assert frames[0].pixels[row, column].argmax() == 2
    assert frames[0].pixels[row, column][2] > 200
    copy(source, tmp_path / f"out{suffix}")
    assert matrix_of(tmp_path / f"out{suffix}") == matrix_of(source)
    for before, after in zip(frames_of(source), frames_of(tmp_path / f"out{suffix}"), strict=True):
        assert before.shape == after.shape
        assert np.abs(before.astype(int) - after).mean() < 3


@pytest.mark.parametrize("space", [1, 6], ids=["bt709", "bt601"])
@pytest.mark.parametrize("span", [1, 2], ids=["limited", "full"])
def test_colours_are_right_and_their_tags_kept(tmp_path: Path, space: int, span: int) -> None:
    source = make_video(tmp_path / "in.mp4", REGULAR[:2], colour=(space, span))
    _, writer = copy(source, tmp_path / "out.mp4", crf=4)
    assert writer.warnings == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (int(context.colorspace), int(context.color_range)) == (space, span)
    for path in (source, tmp_path / "out.mp4"):
        pixels = read_frames(path)[1][0].pixels
        # Means of the red and the blue corner and of the grey middle, as drawn.
        for area, wanted in ((pixels[2:12, 2:20], (0, 0, 250)), (pixels[-12:-2, -20:-2], (250, 0, 0))):
            assert np.abs(area.mean(axis=(0, 1)) - wanted).max() < 5
        assert np.abs(pixels[28:36, 40:60].mean(axis=(0, 1)) - 40).max() < 1.5


def test_odd_sizes_are_padded_and_said(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", REGULAR[:3], size=(97, 63), codec="ffv1", pixels="yuv444p")
    _, frames = read_frames(source)
    assert frames[0].pixels.shape == (63, 97, 3)
    _, writer = copy(source, tmp_path / "out.mp4")
    assert writer.warnings == ["97 x 63 was padded to 98 x 64: 4:2:0 needs even sides."]
    decoded = frames_of(tmp_path / "out.mp4")[0]
    assert decoded.shape == (64, 98, 3)
    assert np.abs(decoded[:63, :97].astype(int) - frames[0].pixels).mean() < 3


def test_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", range(0, 60 * 3600, 3600), options={"g": "5"})
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 6 // 10])
    reader, _ = copy(source, tmp_path / "out.mp4")
    frames = len(times_of(tmp_path / "out.mp4"))
    assert 10 < frames < 60
    assert any(f"{frames} of 60 frames could be read" in warning for warning in reader.warnings)


def test_bit_flips_do_not_end_the_stream(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mkv", range(0, 100 * 3600, 3600), options={"g": "10"}, size=(192, 128))
    data = bytearray(source.read_bytes())
    rng = np.random.default_rng(3)
    for place in rng.integers(len(data) // 5, len(data) * 4 // 5, 25):
        data[place] ^= 1 << int(rng.integers(8))
    source.write_bytes(bytes(data))
    reader, _ = copy(source, tmp_path / "out.mp4")
    times = times_of(tmp_path / "out.mp4")
    assert len(times) > 40
    assert all(a < b for a, b in itertools.pairwise(times))
    assert reader.warnings
    assert max(times) > 3.5  # the end of the file was reached


def test_stream_without_times_gets_regular_ones(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.h264", REGULAR)
    copy(source, tmp_path / "out.mp4")
    times = times_of(tmp_path / "out.mp4")
    assert len(times) == len(REGULAR)
    assert len({b - a for a, b in itertools.pairwise(times)}) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.mp4", b""), ("text.mp4", b"this is no video\n" * 50), ("notes.txt", b"hello\n" * 99), ("no.mkv", None)],
)
def test_files_that_are_no_video(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=name):
        VideoReader(path).__enter__()


def test_index_lost_and_sound_only(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(MediaError, match=r"in\.mp4"):
        VideoReader(source).__enter__()
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        block.sample_rate = 8000
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="holds no video"):
        VideoReader(sound).__enter__()


def info_of(path: Path) -> VideoInfo:
    with VideoReader(path) as reader:
        return reader.info


def test_writer_leaves_nothing_behind_after_an_error(tmp_path: Path) -> None:
    info = info_of(make_video(tmp_path / "in.mp4"))
    old = tmp_path / "out.mp4"
    old.write_bytes(b"the old file")

    def fail() -> None:
        with VideoWriter(old, info) as writer:
            writer.write(np.zeros((64, 96, 3), np.uint8), Frame(np.zeros((64, 96, 3), np.uint8), 0, pts=0))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert old.read_bytes() == b"the old file"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_writer_refuses(tmp_path: Path) -> None:
    info = info_of(make_video(tmp_path / "in.mp4"))
    with pytest.raises(UsageError, match=r"suffix '\.avi'"):
        VideoWriter(tmp_path / "out.avi", info)
    with pytest.raises(UsageError, match="crf is 99"):
        VideoWriter(tmp_path / "out.mp4", info, crf=99)
    with pytest.raises(MediaError, match="No frame came"), VideoWriter(tmp_path / "out.mp4", info):
        pass
    assert not (tmp_path / "out.mp4").exists()


def test_metadata_and_language_are_kept(tmp_path: Path) -> None:
    source = make_video(tmp_path / "plain.mp4", sound="aac")
    tagged = tmp_path / "in.mkv"
    with VideoReader(source) as reader:
        reader.info.metadata["title"] = "A wet day"
        reader.info.carried[0].metadata["language"] = "nor"
        with VideoWriter(tagged, reader.info) as writer:
            for item in reader:
                writer.carry(item) if isinstance(item, Passenger) else writer.write(item.pixels, item)
    copy(tagged, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "A wet day"
        assert container.streams.audio[0].metadata["language"] == "nor"
