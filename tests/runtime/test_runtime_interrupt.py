"""The command in a process of its own: signals in the middle, and a disk that is full."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from clips import make_video, sound_of, times_of
from standin import save_model

from derain.errors import BackendError
from derain.runtime.backends import native_library
from derain.runtime.interrupt import stop_on_signals

FRAMES = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt")
    save_model(folder / "standin.onnx")
    make_video(folder / "in.mp4", range(0, FRAMES * 3600, 3600), size=(96, 64), sound="aac", noise=90)
    return folder


def start(folder: Path, output: Path, file_limit: int = resource.RLIM_INFINITY) -> subprocess.Popen[str]:
    """`derain run` as a process that may write files of at most ``file_limit`` bytes."""
    script = (
        "import resource, sys\n"
        "from derain.cli import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_limit}, {file_limit}))\n"
        "main()"
    )
    arguments = ["run", str(folder / "standin.onnx"), str(folder / "in.mp4"), "-o", str(output)]
    arguments += ["--threads", "1", "--backend", "onnxruntime"]
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until_it_writes(process: subprocess.Popen[str], folder: Path) -> None:
    while process.poll() is None and not any(file.stat().st_size > 40_000 for file in folder.glob(".*")):
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_playable_part(folder: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start(folder, tmp_path / "out.mp4")
    wait_until_it_writes(process, tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "Interrupted" in err
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    times = times_of(tmp_path / "out.mp4")
    assert 0 < len(times) < FRAMES
    assert times == times_of(folder / "in.mp4")[: len(times)]
    assert sound_of(tmp_path / "out.mp4")
    assert f"{len(times)} frames in" in out


def test_a_full_disk_is_told_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    process = start(folder, tmp_path / "out.mp4", file_limit=4096)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "out.mp4' cannot be written" in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_second_signal_insists() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def twice() -> None:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_set()
            assert stop.signal_number == signal.SIGTERM
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def use() -> None:
        with stop_on_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [before]


_CLOSED_BY_ANOTHER_THREAD = """
import os, signal, sys, threading
import numpy as np
import derain
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
model = derain.load(sys.argv[1], sys.argv[2], threads=1)
model(np.zeros((36, 52, 3), np.uint8))
closing = threading.Thread(target=model.close)
closing.start()
closing.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.parametrize("backend", ["openvino", "native"])
def test_a_signal_after_another_thread_closed_the_model(folder: Path, backend: str) -> None:
    """OpenVINO's CPU plugin unmaps the first thread's stack for signals when its last core goes."""
    if backend == "native" and os.environ.get("CI") != "true":
        try:
            native_library.library_path()
        except BackendError as error:
            pytest.skip(str(error))
    command = [sys.executable, "-c", _CLOSED_BY_ANOTHER_THREAD, str(folder / "standin.onnx"), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
