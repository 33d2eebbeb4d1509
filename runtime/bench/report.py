"""From what candidates answered to the parts of a result, and what a reader of the figures should be warned of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from derain.files import file_sha256
from derain.runtime.backends import find
from derain.runtime.backends.onnxruntime_gpu import OnnxRuntimeGpu
from derain.runtime.backends.tensorrt_gpu import EngineBackend
from derain.runtime.bench.figures import summarise
from derain.runtime.bench.schema import (
    Batch,
    Candidate,
    Conditions,
    EndToEnd,
    Energy,
    Latency,
    Machine,
    Memory,
    Split,
    StartUp,
    StepTime,
    Streams,
    known,
)
from derain.runtime.bench.sequence import WarmUp
from derain.runtime.bench.subject import Opened, Spec, Steps, Timing, Usage
from derain.runtime.bench.sweeps import BatchTime, StreamsTime, VideoTime
from derain.runtime.ports import is_native
from derain.runtime.statistics import StageTime

LEAST_FRAMES = 200
_BUSY_SHARE = 0.1
_SLOWER = 0.95
_NO_COPY = "none: the backend works on the frame's own memory"
_WAITED = "in frames of their own, each step waited for; in the others they are started at once"
_IN_CALL = "in the inference: derain build --script times the copies apart, with trtexec"
_IN_GRAPH = "in the graph; this is the call around it"
_CONVERTED = "conversion between uint8 frames and the graph's ports"
_TILED = "not told apart where frames are cut into tiles"


@dataclass
class Answers:
    """All that one candidate told."""

    opened: Opened
    warm: WarmUp
    timings: list[Timing]
    usage: Usage
    steps: list[Steps] = field(default_factory=list)
    energy: list[Energy] = field(default_factory=list)
    batches: dict[int, list[BatchTime]] = field(default_factory=dict)
    streams: list[StreamsTime] = field(default_factory=list)
    video: VideoTime | None = None


def candidate(spec: Spec, told: Answers, no_meter: str) -> Candidate:
    """The result of one candidate.

    Args:
        no_meter: why there is no energy, where there is none.
    """
    totals = [timing.total for timing in told.timings]
    opened = told.opened
    unknown = "the system does not tell: no /proc/self/status"
    no_build = "no engine is built for this backend, or nobody wrote down how long it took"
    return Candidate(
        model=spec.name,
        file=spec.path.name,
        sha256=_sha256(spec.path),
        precision=spec.card.precision.kind,
        kmac_per_pixel=spec.card.cost.kmac_per_pixel,
        quality=spec.card.quality,
        backend=spec.backend,
        device=opened.device,
        chosen=spec.reason,
        threads=opened.threads,
        tile=spec.tile,
        start_up=StartUp(
            load_seconds=opened.load_seconds,
            first_frame_ms=opened.first_seconds * 1e3,
            build_seconds=known(opened.build_seconds, no_build),
        ),
        warm_up_frames=told.warm.frames,
        warm_up_stable=told.warm.stable,
        latency=latency(totals),
        frames_per_second=len(totals) / sum(totals),
        split=split(spec, told.timings, told.steps),
        memory=Memory(
            peak_bytes=known(told.usage.peak_bytes, unknown), before_bytes=known(opened.before_bytes, unknown)
        ),
        energy=told.energy,
        energy_missing=None if told.energy else no_meter,
        batches=[_batch(size, times) for size, times in told.batches.items()],
        streams=[_streams(times) for times in told.streams],
        end_to_end=None if told.video is None or spec.video is None else _end_to_end(spec.video, told.video),
        samples_ms=[round(total * 1e3, 4) for total in totals],
    )


def latency(seconds: Sequence[float]) -> Latency:
    """Percentiles in milliseconds of durations in seconds."""
    found = summarise([1e3 * value for value in seconds])
    return Latency(frames=found.count, mean=found.mean, p50=found.p50, p90=found.p90, p99=found.p99, max=found.max)


def split(spec: Spec, timings: Sequence[Timing], steps: Sequence[Steps] = ()) -> Split:
    """Where the time goes; a step that cannot be told apart has a note in the place of a time.

    Args:
        steps: of a device's frames that waited after each step, where there were any.
    """
    if spec.tile is not None:
        unknown = StepTime(note=_TILED)
        return Split(copy_in=unknown, pre=unknown, inference=unknown, post=unknown, copy_out=unknown)
    on_gpu = runs_on_gpu(spec.backend)
    copy_in = copy_out = StepTime(note=_IN_CALL if on_gpu else _NO_COPY)
    inference = _step([timing.inference for timing in timings], "the graph" + (", with copies" if on_gpu else ""))
    if steps:
        copy_in, inference, copy_out = (_step(seconds, _WAITED) for seconds in zip(*steps, strict=True))
    pictures = [port for port in (*spec.card.inputs, *spec.card.outputs) if port.channels in ("BGR", "RGB")]
    notes = [_IN_GRAPH if is_native(port) else _CONVERTED for port in (pictures[0], pictures[-1])]
    return Split(
        copy_in=copy_in,
        pre=_step([timing.pre for timing in timings], notes[0]),
        inference=inference,
        post=_step([timing.post for timing in timings], notes[1]),
        copy_out=copy_out,
    )


def runs_on_gpu(backend: str) -> bool:
    """Whether a backend of that name copies frames to a GPU and back.

    Raises:
        UsageError: there is none of that name.
    """
    return issubclass(find(backend), (EngineBackend, OnnxRuntimeGpu))


def warnings(frames: int, machine: Machine, before: Conditions, after: Conditions) -> list[str]:
    """Why these figures may be worse, or tell less, than they seem."""
    found = []
    if frames < LEAST_FRAMES:
        found.append(f"only {frames} frames were timed: the 99th percentile needs {LEAST_FRAMES} or more")
    load, shares = before.load_average.value, (before.busy_others.value, after.busy_others.value)
    busy = max([share for share in shares if isinstance(share, float)], default=0.0)
    if busy > _BUSY_SHARE or (isinstance(load, float) and load > machine.cpus / 2):
        found.append(
            f"the machine was busy: load average {load} on {machine.cpus} CPUs before, and other processes used "
            f"{busy:.0%} of them; times are longer and vary more than on a quiet machine"
        )
    for name, first, last in (
        ("CPU", before.cpu_clock_mhz.value, after.cpu_clock_mhz.value),
        ("GPU", before.gpu_clock_mhz.value, after.gpu_clock_mhz.value),
    ):
        if isinstance(first, (int, float)) and isinstance(last, (int, float)) and last < _SLOWER * first:
            found.append(f"the {name} clock fell from {first:g} to {last:g} MHz")
    if before.cpu_throttled.value != after.cpu_throttled.value:
        found.append(
            f"CPU cores were slowed down for heat: {before.cpu_throttled.value} to {after.cpu_throttled.value}"
        )
    if after.gpu_throttled.value not in (None, "none"):
        found.append(f"the GPU was slowed down: {after.gpu_throttled.value}")
    if before.jetson_clocks.value is False:
        found.append("the GPU's clock follows the load: sudo nvpmodel -m 0 && sudo jetson_clocks fixes it")
    if before.governor.value not in (None, "performance"):
        found.append(f"the CPU governor is {before.governor.value}: the clock follows the load")
    return found


def _step(seconds: Sequence[float | None], note: str) -> StepTime:
    measured = [value for value in seconds if value is not None]
    if not measured:
        return StepTime(note=note)
    found = latency(measured)
    return StepTime(median=found.p50, p99=found.p99, note=note)


def _batch(size: int, times: Sequence[BatchTime]) -> Batch:
    seconds = [time.seconds for time in times if time.seconds is not None]
    refused = next((time.refused for time in times if time.refused), "")
    if not seconds or refused:
        return Batch(size=size, latency=None, frames_per_second=None, refused=refused)
    return Batch(size=size, latency=latency(seconds), frames_per_second=size * len(seconds) / sum(seconds))


def _streams(times: StreamsTime) -> Streams:
    frames = sum(times.frames)
    return Streams(
        streams=len(times.frames),
        frames=frames,
        seconds=times.seconds,
        frames_per_second=frames / times.seconds,
        fairness=times.fairness,
        age_p50_ms=1e3 * times.age_p50,
        age_p99_ms=1e3 * times.age_p99,
    )


def _end_to_end(video: Path, times: VideoTime) -> EndToEnd:
    def stage(found: StageTime) -> StepTime:
        return StepTime(median=found.median, p99=found.p99)

    return EndToEnd(
        video=video.name,
        frames=times.frames,
        seconds=times.seconds,
        frames_per_second=times.frames / times.seconds,
        peak_bytes=known(times.peak_bytes, "the system does not tell: no /proc/self/status"),
        stages={name: stage(found) for name, found in times.stages.items()},
    )


@cache
def _sha256(path: Path) -> str:
    return file_sha256(path)
