from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import REGULAR, VARIABLE, frames_of, make_video, matrix_of, sound_of, times_of
from standin import expected, save_model
from typer import Typer
from typer.testing import CliRunner

import derain
from derain.errors import FrameError, MediaError, UsageError
from derain.images import read_image, write_image
from derain.runtime import commands, compare
from derain.runtime.job import Job, JobResult, run_job


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return save_model(tmp_path / "standin.onnx")


@pytest.fixture
def picture() -> Any:
    return np.random.default_rng(2).integers(0, 256, (61, 83, 3), np.uint8)


def work(model_path: Path, job: Job, **options: Any) -> JobResult:
    with derain.load(model_path, "onnxruntime", threads=1) as model:
        return run_job(job, model, **options)


def assert_near(found: Any, wanted: Any) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_picture(tmp_path: Path, model_path: Path, picture: Any) -> None:
    write_image(tmp_path / "in.png", picture)
    job = Job(tmp_path / "in.png", tmp_path / "new" / "out.png", attention=True)
    result = work(model_path, job)
    assert result.outputs == [tmp_path / "new" / "out.png", tmp_path / "new" / "out.rain.png"]
    assert_near(read_image(result.outputs[0]), expected(picture))
    rain = read_image(result.outputs[1])
    assert_near(rain[..., 0], np.rint(expected(picture).mean(axis=2)))
    assert result.stats.frames == 1
    assert result.warnings == []


def test_picture_into_a_folder_keeps_its_name(tmp_path: Path, model_path: Path, picture: Any) -> None:
    write_image(tmp_path / "in.png", picture)
    (tmp_path / "results").mkdir()
    work(model_path, Job(tmp_path / "in.png", tmp_path / "results"))
    assert_near(read_image(tmp_path / "results" / "in.png"), expected(picture))


@pytest.mark.parametrize("kind", ["grey", "rgba", "sixteen", "odd", "pixel"])
def test_unusual_pictures(tmp_path: Path, model_path: Path, picture: Any, kind: str) -> None:
    stored = {
        "grey": picture[..., 0],
        "rgba": np.dstack([picture, np.full(picture.shape[:2], 9, np.uint8)]),
        "sixteen": picture.astype(np.uint16) * 257,
        "odd": picture[:7, :5],
        "pixel": picture[:1, :1],
    }[kind]
    cv2.imwrite(str(tmp_path / "in.png"), stored)
    work(model_path, Job(tmp_path / "in.png", tmp_path / "out.png"))
    assert_near(read_image(tmp_path / "out.png"), expected(read_image(tmp_path / "in.png")))


def test_side_by_side_geometry(tmp_path: Path, model_path: Path, picture: Any) -> None:
    write_image(tmp_path / "in.png", picture)
    work(model_path, Job(tmp_path / "in.png", tmp_path / "out.png", side_by_side=True))
    both = read_image(tmp_path / "out.png")
    height, width = picture.shape[:2]
    assert both.shape == (height, 2 * width + compare.DIVIDER, 3)
    below = slice(height // 2, None)  # the labels are in the upper half
    np.testing.assert_array_equal(both[below, :width], picture[below])
    assert_near(both[below, width + compare.DIVIDER :], expected(picture)[below])
    assert (both[:, width : width + compare.DIVIDER] == 255).all()
    assert (both[: height // 2, :width] != picture[: height // 2]).any(), "no label"


def test_labels_stay_inside_small_pictures() -> None:
    for size in ((1, 1), (5, 300), (300, 5)):
        half = np.full((*size, 3), 7, np.uint8)
        np.testing.assert_array_equal(compare.side_by_side(half, half)[:, : size[1]], half)


def test_folder_keeps_names_and_skips_the_broken(tmp_path: Path, model_path: Path, picture: Any) -> None:
    folder = tmp_path / "rainy"
    folder.mkdir()
    for name in ("frame2.png", "frame10.png", "a b.bmp"):
        write_image(folder / name, picture[: 20 + len(name)])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    (folder / "notes.txt").write_text("not a picture")
    result = work(model_path, Job(folder, tmp_path / "clean", attention=True))
    names = ["a b.bmp", "frame10.png", "frame2.png"]
    assert sorted(p.name for p in (tmp_path / "clean").iterdir() if p.is_file()) == names
    assert sorted(p.name for p in (tmp_path / "clean" / "rain").iterdir()) == names
    for name in names:
        assert_near(read_image(tmp_path / "clean" / name), expected(read_image(folder / name)))
    assert (result.stats.frames, result.failed) == (3, 1)
    assert "broken.png" in result.warnings[0]


def test_folders_that_give_nothing(tmp_path: Path, model_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(MediaError, match="holds no picture"):
        work(model_path, Job(folder, tmp_path / "out"))
    (folder / "a.png").write_bytes(b"")
    (folder / "b.png").write_bytes(b"no")
    with pytest.raises(MediaError, match=r"None of the 2 pictures.*a\.png"):
        work(model_path, Job(folder, tmp_path / "out"))
    with pytest.raises(FrameError, match=r"a\.png"):
        work(model_path, Job(folder / "a.png", tmp_path / "out.png"))
    assert not (tmp_path / "out.png").exists()


def test_nothing_is_overwritten_unasked(tmp_path: Path, model_path: Path, picture: Any) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    write_image(source, picture)
    target.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"out\.png' exists already.*--force"):
        work(model_path, Job(source, target))
    assert target.read_bytes() == b"precious"
    work(model_path, Job(source, target, force=True))
    assert_near(read_image(target), expected(picture))
    (tmp_path / "out2.rain.png").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"out2\.rain\.png' exists"):
        work(model_path, Job(source, tmp_path / "out2.png", attention=True))
    assert not (tmp_path / "out2.png").exists()


@pytest.mark.parametrize("way", ["same", "folder", "link", "hard link", "own folder"])
def test_the_source_is_never_overwritten(tmp_path: Path, model_path: Path, picture: Any, way: str) -> None:
    source = tmp_path / "rainy" / "in.png"
    write_image(source, picture)
    target = tmp_path / "other.png"
    if way == "link":
        target.symlink_to(source)
    elif way == "hard link":
        os.link(source, target)
    job = {
        "same": Job(source, source, force=True),
        "folder": Job(source.parent, source.parent, force=True),
        "own folder": Job(source, source.parent, force=True),
    }.get(way, Job(source, target, force=True))
    with pytest.raises(UsageError, match="is the source itself"):
        work(model_path, job)
    np.testing.assert_array_equal(read_image(source), picture)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("nothing.png", "out.png", "does not exist"),
        ("in.png", "out.mp4", "does not fit the picture"),
        ("in.png", "out", "does not fit the picture"),
        ("in.mp4", "out.png", r"suffix '\.png'"),
        ("in.mp4", "out.avi", r"suffix '\.avi'"),
        ("folder", "out.mp4", "named like a file"),
        ("folder", "in.png", "is a file"),
    ],
)
def test_targets_that_do_not_fit(
    tmp_path: Path, model_path: Path, picture: Any, source: str, target: str, message: str
) -> None:
    write_image(tmp_path / "in.png", picture)
    write_image(tmp_path / "folder" / "a.png", picture)
    make_video(tmp_path / "in.mp4", REGULAR[:2])
    with pytest.raises(UsageError, match=message):
        work(model_path, Job(tmp_path / source, tmp_path / target))


def test_video(tmp_path: Path, model_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", VARIABLE, rotation=90, sound="aac")
    started: list[int | None] = []
    job = Job(source, tmp_path / "out.mp4", attention=True, crf=4)
    result = work(model_path, job, begin=started.append)
    assert started == [len(VARIABLE)]
    assert result.stats.frames == len(VARIABLE)
    assert result.warnings == []
    for output in result.outputs:
        assert times_of(output) == times_of(source)
        assert matrix_of(output) == matrix_of(source)
    assert [data for _, data in sound_of(result.outputs[0])] == [data for _, data in sound_of(source)]
    for before, after in zip(frames_of(source), frames_of(result.outputs[0]), strict=True):
        assert np.abs(expected(before).astype(int) - after).mean() < 3


def test_a_video_into_numbered_pictures(tmp_path: Path, model_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", REGULAR[:5], sound="aac")
    job = Job(source, tmp_path / "pictures" / "%03d.png", attention=True)
    assert work(model_path, job).stats.frames == 5
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == sorted(f"{i:03d}{kind}.png" for i in range(5) for kind in ("", ".rain"))
    for index, before in enumerate(frames_of(source)):
        found = read_image(tmp_path / "pictures" / f"{index:03d}.png").astype(int)
        assert np.abs(found - expected(before)).mean() < 3
    with pytest.raises(UsageError, match=r"000\.png' exists already"):
        work(model_path, job)
    for pattern in ("%s.png", "100%.png", "%d-%d.png"):
        with pytest.raises(UsageError, match="no pattern"):
            work(model_path, Job(source, tmp_path / pattern))


def test_video_side_by_side_is_upright(tmp_path: Path, model_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", REGULAR[:3], rotation=90, sound="aac")
    result = work(model_path, Job(source, tmp_path / "out.mp4", side_by_side=True, crf=4))
    frame = frames_of(result.outputs[0])[0]
    assert frame.shape == (96, 2 * 64 + compare.DIVIDER, 3)
    assert matrix_of(result.outputs[0]) is None
    assert frame[-4, 4].argmax() == 2  # red, turned to the lower left
    assert frame[-4, 64 + compare.DIVIDER + 4].argmax() == 2
    assert sound_of(result.outputs[0])


def test_failing_disk_leaves_no_file(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from derain.runtime.media.video_writer import VideoWriter

    source = make_video(tmp_path / "in.mp4")
    write = VideoWriter.write

    def full(self: VideoWriter, pixels: Any, frame: Any) -> None:
        if frame.index == 5:
            raise OSError(28, "No space left on device")
        write(self, pixels, frame)

    monkeypatch.setattr(VideoWriter, "write", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left"):
        work(model_path, Job(source, tmp_path / "out.mp4", attention=True))
    assert sorted(tmp_path.iterdir()) == before


def test_command(tmp_path: Path, model_path: Path, picture: Any) -> None:
    app = Typer()
    app.callback()(lambda: None)
    commands.register(app)
    write_image(tmp_path / "rainy" / "a[1].png", picture)
    arguments = ["run", str(model_path), str(tmp_path / "rainy"), "-o", str(tmp_path / "clean")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "1 frames in" in shown.output
    assert "standin with" in shown.output
    assert_near(read_image(tmp_path / "clean" / "a[1].png"), expected(picture))
    (tmp_path / "rainy" / "bad.png").write_bytes(b"bad")
    shown = CliRunner().invoke(app, [*arguments, "--force"])
    assert shown.exit_code == 1
    assert "bad.png" in shown.output
    assert isinstance(CliRunner().invoke(app, arguments).exception, UsageError)


def test_a_telephones_video(tmp_path: Path, model_path: Path, shared_data: Path) -> None:
    """Real material: stored on its side, irregular times, AAC sound."""
    source = shared_data / "video" / "yard.mp4"
    stop = threading.Event()

    def enough(done: int) -> None:
        if done >= 5:
            stop.set()

    result = work(model_path, Job(source, tmp_path / "out.mp4"), stop=stop, progress=enough)
    times = times_of(result.outputs[0])
    assert result.stats.stopped
    assert 5 <= len(times) == result.stats.frames
    assert times == times_of(source)[: len(times)]
    assert matrix_of(result.outputs[0]) == matrix_of(source) is not None
    packets = sound_of(result.outputs[0])
    assert packets == sound_of(source)[: len(packets)]
