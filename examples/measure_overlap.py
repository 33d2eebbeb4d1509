"""How much of its slowest part's rate a file job keeps.

Run: python measure_overlap.py clip.mp4 [simulated | BACKEND [ROUNDS]]

`simulated`: devices that wait without using the CPU, as a GPU does; decoding and encoding should hide behind them. Else
the shipped `nano` on the CPU, where all share the cores: there the measure is the core-seconds of the parts alone,
divided by the cores. Other work on the machine counts against the second figure, and so does opening the model for its
lanes, once for each job: take a clip of a thousand frames or more.
"""

import dataclasses
import itertools
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import derain
from derain.runtime.flight import flight_of
from derain.runtime.job import Job, run_job
from derain.runtime.media.items import Frame
from derain.runtime.media.video_reader import VideoReader
from derain.runtime.media.video_writer import VideoWriter
from derain.runtime.pipeline import Derained, Infer, Overlapped

CLIP = Path(sys.argv[1])
BACKEND = sys.argv[2] if sys.argv[2:] else "auto"
DEVICE_SECONDS = 1 / 30
ROUNDS = int(sys.argv[3]) if sys.argv[3:] else 3
WARM = 12  # frames after which an engine has settled on their size
HELD = 60  # decoded frames that encoder and model get again and again when they are measured alone


class OneByOne:
    """A device that is called and waited for, like a synchronous runtime."""

    def __call__(self, frame: Frame) -> Derained:
        """Wait as long as copies and computing take."""
        time.sleep(DEVICE_SECONDS)
        return Derained(frame, frame.pixels)


class InFlight:
    """A device with three slots: copies of a quarter of the computing's time go on beside it."""

    slots = 3

    def __init__(self) -> None:
        self._free = [0.0, 0.0, 0.0]  # when the three engines of the device are done: copy in, compute, copy out

    def begin(self, frame: Frame) -> tuple[Frame, float]:
        """Queue a frame's three steps."""
        done = time.monotonic()
        for place, seconds in enumerate((DEVICE_SECONDS / 4, DEVICE_SECONDS, DEVICE_SECONDS / 4)):
            done = self._free[place] = max(done, self._free[place]) + seconds
        return frame, done

    def finish(self, begun: tuple[Frame, float]) -> Derained:
        """Wait for the last step."""
        time.sleep(max(0.0, begun[1] - time.monotonic()))
        return Derained(begun[0], begun[0].pixels)

    def abandon(self) -> None:
        """There is nothing to give back."""


def through(device: Infer, frames: list[Frame]) -> Iterator[Derained]:
    """Inference alone, as busy as its slots allow."""
    if not isinstance(device, Overlapped):
        yield from map(device, frames)
        return
    begun: deque[Any] = deque()
    for frame in frames:
        if len(begun) == device.slots:
            yield device.finish(begun.popleft())
        begun.append(device.begin(frame))
    yield from map(device.finish, begun)


def measured(work: Callable[[], int]) -> tuple[float, float]:
    """Frames a second, and core-seconds a frame."""
    begin, used = time.perf_counter(), time.process_time()
    frames = work()
    return frames / (time.perf_counter() - begin), (time.process_time() - used) / frames


def frames_of(clip: Path) -> Iterator[Frame]:
    """The pictures of a video."""
    with VideoReader(clip) as reader:
        yield from (item for item in reader if isinstance(item, Frame))


def job(infer: Infer | None, model: derain.runtime.model.Model, folder: Path) -> int:
    """The whole way, from file to file."""
    return run_job(Job(CLIP, folder / "out.mp4", force=True), model, infer=infer).stats.frames


def decode() -> int:
    """The first part alone."""
    return sum(1 for _ in frames_of(CLIP))


def encode(frames: list[Frame], folder: Path) -> int:
    """The last part alone."""
    with VideoReader(CLIP) as reader, VideoWriter(folder / "encoded.mp4", reader.info) as writer:
        for frame in frames:
            writer.write(frame.pixels, frame)
    return len(frames)


def simulated(model: derain.runtime.model.Model, frames: list[Frame], folder: Path) -> None:
    """Devices that wait: a share of the slowest part's rate."""
    others = min(measured(decode)[0], measured(lambda: encode(frames, folder))[0])
    for name, make in (("one by one", OneByOne), ("in flight", InFlight)):
        device, _ = measured(lambda make=make: sum(1 for _ in through(make(), frames)))
        rate, _ = measured(lambda make=make: job(make(), model, folder))
        print(f"simulated device, {name}: alone {device:.2f} frames/s; file to file {rate:.2f},", end=" ")
        print(f"{rate / min(device, others):.1%} of the slowest part alone")


def on_the_cpu(model: derain.runtime.model.Model, frames: list[Frame], folder: Path) -> None:
    """Parts that share the cores: core-seconds alone against cores and time together."""
    cores, shares, busy = len(os.sched_getaffinity(0)), [], []
    for _ in range(ROUNDS):
        with flight_of(model, frames=len(frames)) as flight:
            infer = flight or (lambda frame: Derained(frame, model(frame.pixels)))
            deque(through(infer, frames[:WARM]), maxlen=0)
            parts = {
                "decode": measured(decode),
                "encode": measured(lambda: encode(frames, folder)),
                "nano": measured(lambda infer=infer: sum(1 for _ in through(infer, frames))),
            }
        rate, cost = measured(lambda: job(None, model, folder))
        shares.append(rate * sum(alone for _, alone in parts.values()) / cores)
        busy.append(rate * cost / cores)
        print(", ".join(f"{name} {alone:.1f} ({1e3 * cost:.1f})" for name, (alone, cost) in parts.items()), end="; ")
        print(f"file to file {rate:.1f} ({1e3 * cost:.1f}): {shares[-1]:.1%}, cores {busy[-1]:.1%} busy", flush=True)
    print(f"{model.device}: {np.median(shares):.1%} of the cores divided by the parts' core-seconds", end="; ")
    print(f"the cores were {np.median(busy):.1%} busy")


def main() -> None:
    """Measure and print."""
    count = decode()
    held = list(itertools.islice(frames_of(CLIP), HELD))
    step = held[1].pts - held[0].pts
    frames = [dataclasses.replace(held[i % len(held)], index=i, pts=i * step) for i in range(count)]
    height, width = held[0].pixels.shape[:2]
    print(f"{count} frames of {width} x {height}; in brackets core-ms per frame")
    backend = "auto" if BACKEND == "simulated" else BACKEND
    with tempfile.TemporaryDirectory() as folder, derain.load("nano", backend) as model:
        (simulated if BACKEND == "simulated" else on_the_cpu)(model, frames, Path(folder))


main()
