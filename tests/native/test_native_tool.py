"""derain-native on pictures and videos that it reads and writes through GStreamer."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from native_client import Client, Image
from numpy.typing import NDArray

from derain.runtime.backends import native_library

WIDTH, HEIGHT, FRAMES = 66, 37, 5


def run(tool: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(tool), *(str(argument) for argument in arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def succeed(tool: Path, *arguments: str | Path) -> None:
    result = run(tool, *arguments)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="session")
def tool(library: ctypes.CDLL) -> Path:
    tool = Path(native_library.library_path()).resolve().parent / "derain-native"
    if tool.is_file() and shutil.which("gst-launch-1.0") and "GStreamer decodes" in run(tool, "--help").stdout:
        return tool
    if os.environ.get("CI") == "true":
        pytest.fail("derain-native was not built with GStreamer, or gst-launch-1.0 is missing")
    pytest.skip("derain-native was not built with GStreamer, or gst-launch-1.0 is missing")


@pytest.fixture(scope="session")
def rainy_video(tool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Motion JPEG of an odd height, with sound, at 30000/1001 frames a second."""
    path = tmp_path_factory.mktemp("video") / "rainy.avi"
    caps = f"video/x-raw,width={WIDTH},height={HEIGHT},framerate=30000/1001"
    pipeline = f"videotestsrc num-buffers={FRAMES} pattern=ball ! {caps} ! jpegenc ! m. "
    pipeline += f"audiotestsrc num-buffers=10 ! m. avimux name=m ! filesink location={path}"
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split()], check=True, timeout=120)
    return path


@pytest.mark.parametrize("ending", [".png", ".ppm"])
def test_picture(library: ctypes.CDLL, tool: Path, model_path: Path, tmp_path: Path, ending: str) -> None:
    pixels: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    rainy, clean = tmp_path / "rainy.png", tmp_path / f"clean{ending}"
    cv2.imwrite(str(rainy), pixels)
    succeed(tool, "run", model_path, rainy, clean)
    wanted = Image(library, "bgr", WIDTH, HEIGHT)
    with Client(library, model_path) as client:
        client.run(Image(library, "bgr", WIDTH, HEIGHT).fill([pixels]), wanted)
    np.testing.assert_array_equal(cv2.imread(str(clean)), wanted.planes[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"clean{ending}", "rainy.png"])


def test_video_to_raw_video(
    library: ctypes.CDLL, tool: Path, model_path: Path, rainy_video: Path, tmp_path: Path
) -> None:
    """Byte for byte what the library makes of the decoded frames; JPEG's colours are BT.601, full range."""
    raw, clean = tmp_path / "rainy.raw", tmp_path / "clean.y4m"
    pipeline = f"filesrc location={rainy_video} ! decodebin ! videoconvert ! video/x-raw,format=I420 ! filesink"
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split(), f"location={raw}"], check=True, timeout=120)
    succeed(tool, "run", model_path, rainy_video, clean)
    header, *frames = clean.read_bytes().split(b"FRAME\n")
    assert header == f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F30000:1001 Ip A0:0 C420jpeg XCOLORRANGE=FULL\n".encode()
    assert len(frames) == FRAMES
    values = np.frombuffer(raw.read_bytes(), np.uint8).reshape(FRAMES, -1)
    half = ((HEIGHT + 1) // 2, (WIDTH + 1) // 2)
    with Client(library, model_path) as client:
        for frame, found in zip(values, frames, strict=True):
            # GStreamer's rows begin at multiples of 4 bytes, and it has an even number of luma rows.
            strides, at, planes = ((WIDTH + 3) // 4 * 4, (half[1] + 3) // 4 * 4), 0, []
            for rows, columns, stride in ((HEIGHT, WIDTH, strides[0]), (*half, strides[1]), (*half, strides[1])):
                planes.append(frame[at : at + rows * stride].reshape(rows, stride)[:, :columns])
                at += (rows + rows % 2 * (rows == HEIGHT)) * stride
            clean_image = Image(library, "i420", WIDTH, HEIGHT, colour=1)
            client.run(Image(library, "i420", WIDTH, HEIGHT, colour=1).fill(planes), clean_image)
            assert found == b"".join(plane.tobytes() for plane in clean_image.planes)


@pytest.mark.parametrize("ending", [".avi", ".webm"])
def test_video_to_video(tool: Path, model_path: Path, rainy_video: Path, tmp_path: Path, ending: str) -> None:
    import av

    clean = tmp_path / f"clean{ending}"
    succeed(tool, "run", model_path, rainy_video, clean)
    with av.open(str(clean)) as container:
        times = [frame.time for frame in container.decode(video=0)]
        assert not container.streams.audio
    assert times == pytest.approx([index * 1001 / 30000 for index in range(FRAMES)], abs=0.002)
    assert list(tmp_path.iterdir()) == [clean]


def test_raw_video_to_video(tool: Path, model_path: Path, rainy_video: Path, tmp_path: Path) -> None:
    import av

    raw, clean = tmp_path / "rainy.y4m", tmp_path / "clean.avi"
    succeed(tool, "run", model_path, rainy_video, raw, "--strength", "0")
    succeed(tool, "run", model_path, raw, clean)
    with av.open(str(clean)) as container:
        assert container.streams.video[0].average_rate * 1001 == 30000
        assert sum(1 for _ in container.decode(video=0)) == FRAMES


@pytest.mark.parametrize(
    ("source", "sink", "message"),
    [
        ("absent.png", "clean.png", "absent.png' cannot be opened (No such file"),
        (".", "clean.png", "cannot be opened (Is a directory)"),
        ("empty.png", "clean.png", "cannot be opened (it is empty)"),
        ("text.txt", "clean.avi", "fails in GStreamer: This appears to be a text file"),
        ("broken.png", "clean.png", "fails in GStreamer"),
        ("VIDEO", "clean.png", "no ending for a video. Expected one of: .mp4"),
        ("VIDEO", "clean", "no ending for a video"),
        ("VIDEO", "clean.ppm", "cannot hold a video. Give it the ending .y4m"),
        ("VIDEO", "absent/clean.avi", "Could not open file"),
        ("picture.png", "clean.avi", "no ending for a picture. Expected one of: .png"),
        ("picture.png", "clean.y4m", "cannot hold a picture. Give it the ending .ppm"),
    ],
)
def test_what_cannot_be_done(
    tool: Path, model_path: Path, rainy_video: Path, tmp_path: Path, source: str, sink: str, message: str
) -> None:
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.txt").write_text("no picture\n" * 100)
    (tmp_path / "broken.png").write_bytes((tmp_path / "picture.png").read_bytes()[:60])
    before = sorted(tmp_path.iterdir())
    result = run(tool, "run", model_path, rainy_video if source == "VIDEO" else tmp_path / source, tmp_path / sink)
    assert result.returncode == 1
    assert message in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_version(library: ctypes.CDLL, tool: Path) -> None:
    text = run(tool, "--version").stdout
    assert text.startswith(f"libderain {library.derain_version().decode()}\nengines: ")
    assert run(tool, "run", "--help").returncode == 0
