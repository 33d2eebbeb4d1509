"""What ``make bench`` measures: the runs of ``derain bench``, in how much time, and which need not be made again."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import av
import cv2

from derain.demo import make_clip
from derain.errors import DataError
from derain.files import atomic_path, file_sha256
from derain.models import resolve
from derain.runtime.bench.machine import describe_machine
from derain.runtime.bench.schema import BenchResult, Machine, read_result
from derain.runtime.doctor_system import System

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
GROWTH = {"640x360": 4.0, "1280x720": 10.0, "1920x1080": 24.0, "3840x2160": 13.0, "7680x4320": 35.0}
"""Sizes of the frames, and seconds for each."""
_LARGE_SIZES = ("3840x2160", "7680x4320")
_ONE_TILE = ("640x360", "1280x720")
LENGTHS = (100, 500, 2000)
KEPT_HOURS = 3.0
_START_SECONDS = 6.0  # Python, loading, warming up
_HANGS_SECONDS = 600.0
_SMALL, _LARGE = (640, 360), (1280, 720)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One result.

    Attributes:
        name: of its file.
        about: for people.
        arguments: of ``derain bench``.
        seconds: at most so long for its frames.
        clip: width, height and number of frames of a video to make for it, its last argument.
        more: seconds of what is not frames: the video.
    """

    name: str
    about: str
    arguments: tuple[str, ...]
    seconds: float
    clip: tuple[int, int, int] | None = None
    more: float = 0.0

    @property
    def planned(self) -> float:
        """Seconds in all, on the machine that the plan was made for."""
        return self.seconds + self.more + _START_SECONDS


def steps(frames: int) -> list[Step]:
    """All results, what matters most first."""
    timed = ("--frames", str(frames), "--warmup", str(max(1, min(12, frames // 10))))
    both = ("nano", "edge", "--backend", "onnxruntime", "--backend", "openvino")
    fast = ("nano", "edge", "--backend", "openvino")
    nano = ("nano", "--backend", "openvino")
    found = [
        Step("cpu-1280x720", "nano and edge, both engines", (*both, "--size", "1280x720", *timed), 130),
        Step("cpu-1920x1080", "nano and edge", (*fast, "--size", "1920x1080", *timed), 115),
        Step("one-thread-1280x720", "nano and edge", (*fast, "--threads", "1", "--size", "1280x720", *timed), 80),
        Step("end-to-end", "from file to file", (*fast, *timed), 50, (*_LARGE, 100), 30),
        Step("streams", "1, 2, 4 and 8 streams", (*nano, "--streams", "1,2,4,8", *timed), 45, more=15),
    ]
    for size, seconds in GROWTH.items():
        few = ("--frames", str(min(frames, 20)), "--warmup", "4") if size in _LARGE_SIZES else timed
        common = (*nano, "--size", size, *few)
        found.append(Step(f"whole-{size}", "whole frames", common, seconds))
        if size not in _ONE_TILE:
            found.append(Step(f"tiles-{size}", "in tiles of 1024", (*common, "--tile", "1024"), seconds))
    brief = ("--frames", "20", "--warmup", "5")
    found += [
        Step(f"video-{length}", f"a video of {length} frames", (*nano, *brief), 5, (*_SMALL, length), length / 60)
        for length in LENGTHS
    ]
    return found


def measure(names: Sequence[str], frames: int, minutes: float, again: bool, say: Say) -> list[str]:
    """Run the steps of those names, all where there is none; a result is replaced when its run has ended well.

    Args:
        minutes: for all; each step's share shrinks where the machine is slower than planned for.
        again: also what was measured within the last hours, of the same files on the same machine.

    Returns:
        The names of those that failed: the largest frames may need more memory than there is.
    """
    chosen = [step for step in steps(frames) if not names or step.name in names]
    machine = describe_machine(System())
    todo = [step for step in chosen if again or names or not is_current(step, machine)]
    for step in chosen:
        if step not in todo:
            say(f"kept: {step.name}, measured in the last {KEPT_HOURS:g} hours (make bench AGAIN=1 measures it again)")
    RESULTS.mkdir(exist_ok=True)
    failed, begun = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="derain-bench-") as folder:
        for number, step in enumerate(todo):
            left = 60 * minutes - (time.monotonic() - begun)
            share = min(1.0, max(0.1, left / sum(other.planned for other in todo[number:])))
            say(
                f"[{number + 1}/{len(todo)}] {step.name}: {step.about}; at most {step.planned * share:.0f} s, "
                f"{max(0.0, left) / 60:.1f} of {minutes:g} minutes left"
            )
            problem = run(step, step.seconds * share, Path(folder))
            if problem:
                failed.append(step.name)
                say(f"    failed: {problem}")
            else:
                for line in told(read_result(RESULTS / f"{step.name}.json")):
                    say(f"    {line}")
    return failed


def run(step: Step, seconds: float, folder: Path) -> str:
    """One step, into its result; what went wrong, empty when nothing did."""
    target = RESULTS / f"{step.name}.json"
    arguments = list(step.arguments)
    if step.clip is not None:
        width, height, length = step.clip
        clip = folder / f"rain-{width}x{height}-{length}.mp4"
        make_video(clip, width, height, length)
        arguments += ["--input", str(clip)]
    temporary = folder / target.name
    command = [sys.executable, "-m", "derain", "bench", *arguments, "--seconds", f"{max(1.0, seconds):.0f}"]
    try:
        done = subprocess.run(
            [*command, "--json", str(temporary)], cwd=ROOT, check=False, capture_output=True, text=True,
            timeout=_HANGS_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it did not end within {_HANGS_SECONDS:.0f} s"
    if done.returncode:
        return (done.stderr.strip() or f"exit code {done.returncode}")[-500:]
    # The folder's name says nothing to a reader.
    text = temporary.read_text(encoding="utf-8").replace(f"{folder}/", "")
    with atomic_path(target) as place:
        place.write_text(text, encoding="utf-8")
    return ""


def is_current(step: Step, machine: Machine, now: datetime | None = None) -> bool:
    """Whether the result is of the last hours, this machine, these versions and these files of the models."""
    try:
        result = read_result(RESULTS / f"{step.name}.json")
    except DataError:
        return False
    age = (now or datetime.now(timezone.utc)) - datetime.fromisoformat(result.date)
    if not 0 <= age.total_seconds() < 3600 * KEPT_HOURS or result.machine != machine:
        return False
    given = shown(result.command).partition(" --seconds ")[0].partition(" --input ")[0]
    if given != " ".join(["derain", "bench", *step.arguments]):
        return False
    files = {name: file_sha256(resolve(name)) for name in step.arguments if name in ("nano", "edge")}
    return {item.model: item.sha256 for item in result.candidates} == files


def shown(command: str) -> str:
    """A command without the file that it writes."""
    return command.partition(" --json ")[0]


def told(result: BenchResult) -> Iterator[str]:
    """A result in a line for each candidate."""
    for item in result.candidates:
        text = f"{item.label}: {item.frames_per_second:.2f} frames/s, p99 {item.latency.p99:.0f} ms"
        if item.end_to_end is not None:
            text += f"; from file to file {item.end_to_end.frames_per_second:.2f} frames/s"
        yield text


def make_video(path: Path, width: int, height: int, length: int) -> None:
    """The demonstration's clip enlarged, forwards and backwards until it is long enough, as H.264 of 25 frames/s."""
    rainy = make_clip(min(length, 60)).rainy
    pictures = [cv2.resize(picture, (width, height)) for picture in (*rainy, *rainy[-2:0:-1])]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(length):
            frame = av.VideoFrame.from_ndarray(pictures[index % len(pictures)], format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
