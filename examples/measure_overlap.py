"""How much of its slowest part's rate a file job keeps. Run: python measure_overlap.py clip.mp4 [backend]

First with simulated devices that wait without using the CPU, as a GPU does: decoding and encoding should hide behind
them. Then with the shipped `nano` on the CPU, where all share the cores: there the measure is the core-seconds of the
parts alone, divided by the cores. Other work on the machine counts against the second figure.
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

import numpy as np

import derain
from derain.runtime.job import Job, run_job
from derain.runtime.media.items import Frame
from derain.runtime.media.video_reader import VideoReader
from derain.runtime.media.video_writer import VideoWriter
from derain.runtime.pipeline import Derained, Infer

CLIP = Path(sys.argv[1])
BACKEND = sys.argv[2] if sys.argv[2:] else "auto"
DEVICE_SECONDS = 1 / 30
ROUNDS = 3
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
    """A device alone, as busy as its slots allow."""
    if not isinstance(device, InFlight):
        yield from map(device, frames)
        return
    begun = deque()
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


def main() -> None:
    """Measure and print."""
    count = sum(1 for _ in frames_of(CLIP))
    held = list(itertools.islice(frames_of(CLIP), HELD))
    step = held[1].pts - held[0].pts
    again = [dataclasses.replace(held[i % len(held)], index=i, pts=i * step) for i in range(count)]

    with tempfile.TemporaryDirectory() as temporary, derain.load("nano", BACKEND) as model:
        folder = Path(temporary)

        def decode() -> int:
            return sum(1 for _ in frames_of(CLIP))

        def encode() -> int:
            with VideoReader(CLIP) as reader, VideoWriter(folder / "encoded.mp4", reader.info) as writer:
                for frame in again:
                    writer.write(frame.pixels, frame)
            return count

        def infer() -> int:
            return sum(1 for frame in again if model(frame.pixels) is not None)

        model(held[0].pixels)  # warm
        alone = {name: measured(work) for name, work in {"decode": decode, "encode": encode, "nano": infer}.items()}
        height, width = held[0].pixels.shape[:2]
        print(f"{count} frames of {width} x {height}; frames/s alone (core-ms per frame):")
        print(", ".join(f"{name} {rate:.1f} ({1e3 * cost:.1f})" for name, (rate, cost) in alone.items()))
        for name, make in (("one by one", OneByOne), ("in flight", InFlight)):
            device, _ = measured(lambda make=make: sum(1 for _ in through(make(), again)))
            rate, _ = measured(lambda make=make: job(make(), model, folder))
            slowest = min(device, alone["decode"][0], alone["encode"][0])
            print(f"simulated device, {name}: alone {device:.2f} frames/s; file to file {rate:.2f},", end=" ")
            print(f"{rate / slowest:.1%} of the slowest part alone")
        cores, shares, busy = len(os.sched_getaffinity(0)), [], []
        for _ in range(ROUNDS):
            costs = [measured(work)[1] for work in (decode, encode, infer)]
            rate, cost = measured(lambda: job(None, model, folder))
            shares.append(rate * sum(costs) / cores)
            busy.append(rate * cost / cores)
        print(f"CPU, {model.device}: {np.median(shares):.1%} of the cores divided by the parts' core-seconds", end=" ")
        print(f"({', '.join(f'{share:.0%}' for share in shares)}); the cores were {np.median(busy):.0%} busy")


main()
