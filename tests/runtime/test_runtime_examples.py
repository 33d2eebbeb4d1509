"""The examples run as they are written, with the shipped model on a small clip."""

from __future__ import annotations

import py_compile
import subprocess
import sys
from pathlib import Path

import pytest
from clips import REGULAR, make_video

from derain.models import shipped

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize(("name", "argument", "lines"), [("streams", "a={}", 7), ("streams_async", "{}", 6)])
def test_example(tmp_path: Path, name: str, argument: str, lines: int) -> None:
    if "nano" not in shipped():
        pytest.skip("'nano' does not ship with this tree")
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


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_examples_compile(path: Path, tmp_path: Path) -> None:
    py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)
