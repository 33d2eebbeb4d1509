"""The examples run as they are written, with the shipped model on a small clip."""

from __future__ import annotations

import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from clips import REGULAR, make_video

from derain.images import read_image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize(("name", "argument", "lines"), [("streams", "a={}", 7), ("streams_async", "{}", 6)])
def test_example(tmp_path: Path, name: str, argument: str, lines: int) -> None:
    clip = make_video(tmp_path / "a.mp4", REGULAR[:6])
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", argument.format(clip)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == lines, done.stdout


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
