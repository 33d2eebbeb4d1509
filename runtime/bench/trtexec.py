"""Times of ``trtexec`` as a result of a benchmark, so that both can be shown and compared alike."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from derain import __version__
from derain.card import ModelCard
from derain.runtime.bench.report import latency
from derain.runtime.bench.schema import (
    BenchResult,
    Candidate,
    Memory,
    Reading,
    Split,
    StartUp,
    StepTime,
)
from derain.runtime.engine.times import read_times

_UNKNOWN = Reading(missing="trtexec's file does not tell")


def from_trtexec(
    path: Path, size: tuple[int, int] | None, command: str, model: tuple[str, ModelCard] | None = None
) -> BenchResult:
    """Read a file of ``trtexec --exportTimes``, such as the scripts that ``derain build`` makes write.

    Args:
        path: named ``MODEL.engine.copies.json`` or ``MODEL.engine.compute.json`` by the scripts.
        size: width and height of the frames; the file does not tell.
        model: name and card of the model that was timed; None where that is not known.

    Raises:
        ModelFileError: missing, damaged, or another file.
    """
    times = read_times(path)
    copied = any(times.copies_in) or any(times.copies_out)
    in_graph = StepTime(note="in the graph where the model takes uint8 frames")
    name, card = model or (path.name.split(".engine")[0].removesuffix(".json"), None)
    candidate = Candidate(
        model=name,
        file=path.name,
        sha256=None,
        precision=None if card is None else card.precision.kind,
        kmac_per_pixel=None if card is None else card.cost.kmac_per_pixel,
        quality=[] if card is None else card.quality,
        backend="trtexec",
        device="a GPU that trtexec's file does not name",
        chosen="asked for",
        threads=None,
        start_up=StartUp(build_seconds=_UNKNOWN),
        warm_up_frames=0,
        warm_up_stable=True,
        latency=latency([value / 1e3 for value in times.latency]),
        frames_per_second=times.frames_per_second,
        split=Split(
            copy_in=_step(times.copies_in, copied),
            pre=in_graph,
            inference=_step(times.compute, True),
            post=in_graph,
            copy_out=_step(times.copies_out, copied),
        ),
        memory=Memory(peak_bytes=_UNKNOWN, before_bytes=_UNKNOWN),
        energy_missing=_UNKNOWN.missing,
        samples_ms=times.latency,
    )
    written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    return BenchResult(
        source="trtexec",
        derain_version=__version__,
        date=written.isoformat(timespec="seconds"),
        command=command,
        width=None if size is None else size[0],
        height=None if size is None else size[1],
        seed=0,
        machine=None,
        before=None,
        after=None,
        warnings=["read from trtexec: warm-up, clocks and machine are not known; the date is that of the file"],
        candidates=[candidate],
    )


def _step(milliseconds: list[float], measured: bool) -> StepTime:
    if not measured:
        return StepTime(note="trtexec was told to leave it out")
    found = latency([value / 1e3 for value in milliseconds])
    return StepTime(median=found.p50, p99=found.p99)
