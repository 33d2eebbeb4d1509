"""The examples run as they are written, with the shipped model on a small clip."""

from __future__ import annotations

import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import REGULAR, make_video

from derain.demo import SAMPLE
from derain.images import read_image, write_image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_example(name: str, *arguments: object) -> list[str]:
    """The lines an example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("name", "argument", "lines"), [("streams", "a={}", 7), ("streams_async", "{}", 6)])
def test_example(tmp_path: Path, name: str, argument: str, lines: int) -> None:
    clip = make_video(tmp_path / "a.mp4", REGULAR[:6])
    assert len(run_example(f"{name}.py", argument.format(clip))) == lines


@pytest.mark.parametrize(
    ("what", "lines", "told"), [("simulated", 3, "of the slowest part alone"), ("onnxruntime", 5, "cores were")]
)
def test_overlap_is_measured(tmp_path: Path, what: str, lines: int, told: str) -> None:
    clip = make_video(tmp_path / "a.mp4", range(0, 20 * 3600, 3600))
    done = run_example("measure_overlap.py", clip, what)
    assert len(done) == lines, done
    assert told in done[-1]


def test_the_gate_is_measured(tmp_path: Path) -> None:
    """The shipped photograph is dry; whether noise is rain is for each model to say."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    write_image(tmp_path / "rain" / "a.png", noise)
    write_image(tmp_path / "dry" / "b.png", cv2.resize(read_image(SAMPLE), (320, 213), interpolation=cv2.INTER_AREA))
    write_image(tmp_path / "dry" / "trained-on.png", noise)
    (tmp_path / "splits.json").write_text('{"dry": ["b.png"]}')
    done = run_example("measure_gate.py", tmp_path / "rain", tmp_path / "dry", tmp_path / "splits.json", "nano")
    assert re.match(r"one look: (0|100)% of 1 rainy pictures missed, 0% of 1 dry ones alarmed", done[0])
    assert done[1].startswith("rain, 1 clips of 12 s: derained ")
    assert done[2].startswith("dry, 1 clips of 12 s: derained 0% of the time; 0 clips wholly, 1 never")
    assert done[3].startswith("dry clips in a row, 0 minutes: derained 0% of the time, 0 changes")


def test_appsink_loses_no_frame_of_a_source_that_waits(tmp_path: Path) -> None:
    """With the interpreter that has GStreamer's bindings: the system's own, of this version, given our packages."""
    python = shutil.which("python3", path="/usr/bin")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    check = f"import gi, sys; gi.require_version('Gst', '1.0'); assert sys.version.startswith('{version}.')"
    if python is None or subprocess.run([python, "-c", check], capture_output=True, check=False).returncode:
        pytest.skip(f"no system Python {version} with GStreamer's bindings")
    packages = sysconfig.get_path("purelib")
    example = EXAMPLES / "gstreamer_appsink.py"
    start = f"import runpy, site, sys; site.addsitedir({packages!r}); runpy.run_path({str(example)!r})"
    source = "videotestsrc num-buffers=60 ! video/x-raw,width=66,height=48"  # rows of 198 bytes, padded to 200
    sink = f"pngenc ! multifilesink location={tmp_path}/%03d.png"
    done = subprocess.run([python, "-c", start, source, sink], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 60
    assert read_image(pictures[-1]).shape == (48, 66, 3)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_examples_compile(path: Path, tmp_path: Path) -> None:
    py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)
