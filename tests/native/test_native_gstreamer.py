"""The GStreamer element `derain` in real pipelines."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from native_client import Client, Image
from numpy.typing import NDArray
from port_models import save_extractor

from derain.runtime.backends import native_library

WIDTH, HEIGHT, FRAMES = 66, 37, 3  # rows are padded to 4 bytes, and chroma has odd sizes


@pytest.fixture(scope="session")
def build(library: ctypes.CDLL) -> Path:
    """Where the plugin was built; skipped, but never under CI, where it was not."""
    folder = Path(native_library.library_path()).resolve().parent
    if shutil.which("gst-launch-1.0") and (folder / "gstreamer-1.0" / "libgstderain.so").is_file():
        return folder
    if os.environ.get("CI") == "true":
        pytest.fail("the GStreamer element was not built, or gst-launch-1.0 is missing")
    pytest.skip("the GStreamer element was not built, or gst-launch-1.0 is missing")


@pytest.fixture(scope="session")
def environment(build: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    registry = tmp_path_factory.mktemp("gst") / "registry.bin"
    return {**os.environ, "GST_PLUGIN_PATH": str(build / "gstreamer-1.0"), "GST_REGISTRY": str(registry)}


def launch(environment: dict[str, str], pipeline: str) -> subprocess.CompletedProcess[str]:
    command = ["gst-launch-1.0", "-q", *pipeline.split()]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def record(environment: dict[str, str], pipeline: str, path: Path) -> bytes:
    result = launch(environment, f"{pipeline} ! filesink location={path}")
    assert result.returncode == 0, result.stderr
    return path.read_bytes()


def images(library: ctypes.CDLL, data: bytes, name: str, colour: int) -> list[Image]:
    """Frames of GStreamer's raw video, whose rows begin at multiples of 4 bytes."""
    row = {"bgr": 3, "rgb": 3, "bgra": 4}.get(name, 1) * WIDTH
    half_width = (WIDTH + 1) // 2
    rows = [(HEIGHT, row)]
    if name == "nv12":
        rows.append(((HEIGHT + 1) // 2, 2 * half_width))
    if name == "i420":
        rows += [((HEIGHT + 1) // 2, half_width)] * 2
    values = np.frombuffer(data, np.uint8)
    result, at = [], 0
    while at < len(values):
        image = Image(library, name, WIDTH, HEIGHT, colour)
        for plane, (count, width) in zip(image.memory, rows, strict=True):
            stride = (width + 3) // 4 * 4
            # GStreamer rounds the number of luma rows of 4:2:0 video up to an even one.
            stored = (count + 1) // 2 * 2 if name in ("nv12", "i420") and count == HEIGHT else count
            plane[...] = values[at : at + stride * count].reshape(count, stride)[:, :width]
            at += stride * stored
        result.append(image)
    return result


@pytest.mark.parametrize(
    ("caps", "name", "colour"),
    [
        ("BGR", "bgr", 0),
        ("RGB", "rgb", 0),
        ("BGRx", "bgra", 0),
        ("NV12,colorimetry=bt601", "nv12", 0),
        ("NV12,colorimetry=bt709", "nv12", 2),
        ("I420,colorimetry=1:3:5:1", "i420", 3),
    ],
)
def test_bytes_of_the_library(
    library: ctypes.CDLL,
    environment: dict[str, str],
    model_path: Path,
    tmp_path: Path,
    caps: str,
    name: str,
    colour: int,
) -> None:
    source = f"videotestsrc num-buffers={FRAMES} pattern=ball ! video/x-raw,format={caps},width={WIDTH},height={HEIGHT}"
    rainy = images(library, record(environment, source, tmp_path / "rainy"), name, colour)
    derained = record(environment, f"{source} ! derain model={model_path}", tmp_path / "clean")
    found = images(library, derained, name, colour)
    assert len(rainy) == len(found) == FRAMES
    with Client(library, model_path) as client:
        for before, after in zip(rainy, found, strict=True):
            wanted = Image(library, name, WIDTH, HEIGHT, colour)
            client.run(before, wanted)
            for plane, expected in zip(after.planes, wanted.planes, strict=True):
                np.testing.assert_array_equal(plane, expected)
        assert any((b.memory[0] != a.memory[0]).any() for b, a in zip(rainy, found, strict=True))


def test_caps_that_change_in_the_stream(environment: dict[str, str], model_path: Path, tmp_path: Path) -> None:
    sizes = [("BGR", 64, 48, 3), ("NV12", 32, 24, 1.5), ("I420", 128, 96, 1.5)]
    sources = " ".join(
        f"videotestsrc num-buffers=2 ! video/x-raw,format={kind},width={width},height={height} ! c."
        for kind, width, height, _ in sizes
    )
    data = record(environment, f"{sources} concat name=c ! derain model={model_path}", tmp_path / "all")
    assert len(data) == sum(2 * width * height * size for _, width, height, size in sizes)


def test_picture_file_through_decoders(environment: dict[str, str], model_path: Path, tmp_path: Path) -> None:
    import cv2

    frame: NDArray[np.uint8] = np.random.default_rng(2).integers(0, 256, (48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "rainy.png"), frame)
    path = tmp_path / "clean.png"
    pipeline = (
        f"filesrc location={tmp_path / 'rainy.png'} ! pngdec ! videoconvert ! video/x-raw,format=BGR"
        f" ! derain model={model_path} ! videoconvert ! pngenc snapshot=true"
    )
    record(environment, pipeline, path)
    clean = cv2.imread(str(path))
    padded = np.pad(frame.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    blurred = sum(padded[y : y + 48, x : x + 64] for y in range(3) for x in range(3)) / 9 * np.array([1, 1, 0.75])
    assert np.abs(clean - blurred).max() <= 1


def test_the_extractor_beside_the_model_looks_for_rain(
    environment: dict[str, str], standin: ModuleType, tmp_path: Path
) -> None:
    """White frames are all rain for the whole model. So those that pass were looked at by the extractor."""
    model, extractor = standin.save_model(tmp_path / "edge.onnx"), tmp_path / "edge.attention.onnx"
    # Rows of 64 pixels have no padding, whose bytes would be arbitrary.
    source = "videotestsrc num-buffers=4 pattern=white ! video/x-raw,format=BGR,width=64,height=48"
    rainy = record(environment, source, tmp_path / "rainy")

    def derained(options: str) -> bytes:
        return record(environment, f"{source} ! derain model={model} {options}", tmp_path / "clean")

    without = derained("gate=0.25 gate-interval=2")
    assert without != rainy
    save_extractor(standin, extractor, gain=0)
    assert derained("gate=0.25 gate-interval=2") == rainy
    assert derained("") == without
    save_extractor(standin, extractor, gain=1)
    assert derained("gate=0.25") == without
    save_extractor(standin, tmp_path / "dry.onnx", gain=0)
    assert derained(f"gate=0.25 gate-model={tmp_path / 'dry.onnx'}") == rainy


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ("derain", "No model is set"),
        ("derain model={model} gate-model=absent.attention.onnx", "absent.attention.onnx' cannot be opened"),
        ("derain model=absent.onnx", "absent.onnx' cannot be opened"),
        ("derain model={model} backend=nonsense", "no backend 'nonsense'"),
    ],
)
def test_errors_reach_the_user(environment: dict[str, str], model_path: Path, element: str, message: str) -> None:
    result = launch(environment, f"videotestsrc num-buffers=1 ! {element.format(model=model_path)} ! fakesink")
    assert result.returncode != 0
    assert message in result.stderr


def test_element_in_an_application(build: Path, environment: dict[str, str], model_path: Path) -> None:
    program = [str(build / "test_gst_element"), str(model_path)]
    result = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr


def test_inspect_reads_well(environment: dict[str, str]) -> None:
    result = subprocess.run(
        ["gst-inspect-1.0", "derain"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    for text in (
        "Removes rain from video",
        "NV12",
        "gate-interval",
        "gate-model",
        "strength",
        "overlay",
        "Longest time of a frame",
    ):
        assert text in result.stdout


def test_video_file_to_video_file(environment: dict[str, str], model_path: Path, tmp_path: Path) -> None:
    """The pipeline of the documentation, with the encoder that Debian's basic plugins have."""
    import av

    rainy, clean = tmp_path / "rainy.avi", tmp_path / "clean.avi"
    source = "videotestsrc num-buffers=12 pattern=smpte ! video/x-raw,width=96,height=64,framerate=25/1"
    record(environment, f"{source} ! jpegenc quality=95 ! avimux", rainy)
    pipeline = f"filesrc location={rainy} ! decodebin ! videoconvert ! derain model={model_path} ! videoconvert"
    record(environment, f"{pipeline} ! jpegenc quality=95 ! avimux", clean)
    frames = []
    for path in (rainy, clean):
        with av.open(str(path)) as container:
            frames.append([(frame.time, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)])
    assert [time for time, _ in frames[1]] == [time for time, _ in frames[0]]
    assert len(frames[1]) == 12
    red = [float(pictures[0][1][..., 2].mean()) for pictures in frames]
    assert red[1] == pytest.approx(0.75 * red[0], abs=3)  # the stand-in takes a quarter of red away


@pytest.mark.full
def test_soak_of_ten_minutes(build: Path, environment: dict[str, str], model_path: Path) -> None:
    """Video at the speed of a camera, of a new size every minute: it runs to its end, and memory does not grow."""
    sources = " ".join(
        f"videotestsrc num-buffers={60 * 30} ! video/x-raw,format=NV12,{size},framerate=30/1 ! c."
        for size in 5 * ("width=640,height=360", "width=320,height=180")
    )
    pipeline = f"{sources} concat name=c ! derain model={model_path} ! fakesink sync=true qos=true"
    with subprocess.Popen(["gst-launch-1.0", "-q", *pipeline.split()], env=environment) as process:
        try:
            sizes = []
            for _ in range(9):
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(60)
                pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
                sizes.append(int(pages) * os.sysconf("SC_PAGESIZE"))
            assert process.wait(600) == 0
        finally:
            process.kill()
    assert max(sizes[2:]) < sizes[1] + 20_000_000, sizes
    print("resident MiB, minute by minute:", [size >> 20 for size in sizes])
