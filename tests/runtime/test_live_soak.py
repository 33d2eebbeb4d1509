"""Two looped clips through everything that runs in a live job, for as long as wanted: nothing may grow."""

from __future__ import annotations

import os
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from clips import make_video

import derain
from derain.runtime.live.addresses import parse_address
from derain.runtime.live.job import LiveOptions, stream_specs
from derain.runtime.live.run import LiveRun
from derain.runtime.preview.server import PreviewServer

pytestmark = pytest.mark.full

SAMPLES = 120
FRAME_TICKS = 90000 // 4
GROWTH_MB = 8


class Sample(NamedTuple):
    """What the process holds at one moment."""

    seconds: float
    megabytes: float
    threads: int
    handles: int


def _sample(begin: float) -> Sample:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads, handles = (len(list(Path(f"/proc/self/{what}").iterdir())) for what in ("task", "fd"))
    return Sample(time.monotonic() - begin, pages * os.sysconf("SC_PAGE_SIZE") / 1e6, threads, handles)


def test_two_looped_streams_leak_nothing(tmp_path: Path) -> None:
    """Decoding, the shipped model, the rain gate, a recording, and the preview that is asked for pictures and metrics.

    DERAIN_SOAK_SECONDS: 60 unless told; an hour for the report. DERAIN_SOAK_CURVE: a .png for the curve.
    """
    seconds = float(os.environ.get("DERAIN_SOAK_SECONDS", "60"))
    clips = [make_video(tmp_path / f"{name}.mp4", range(0, 20 * FRAME_TICKS, FRAME_TICKS)) for name in ("a", "b")]
    addresses = [parse_address(str(clip)) for clip in clips]
    options = LiveOptions(output=str(tmp_path / "{name}.out.mp4"), replay=True, gate="always", keep_map=True)
    with derain.load("nano", backend="onnxruntime", threads=1) as model:
        run = LiveRun(stream_specs(addresses, model, options))
        server = PreviewServer(run, "127.0.0.1", 0)
        run.start()
        server.start()
        curve, begin = [], time.monotonic()
        try:
            while time.monotonic() - begin < seconds:
                time.sleep(seconds / SAMPLES)
                for path in ("metrics", "api/streams/a/after.jpg", "api/streams/b/rain.jpg"):
                    with urllib.request.urlopen(f"{server.url}{path}", timeout=300) as answer:
                        assert answer.read()
                curve.append(_sample(begin))
            reports = run.reports()
        finally:
            server.stop()
            run.stop()
            ended = run.wait(60)
    if picture := os.environ.get("DERAIN_SOAK_CURVE"):
        _draw(curve, Path(picture))
    quarter = len(curve) // 4
    early, late = (np.median(part, axis=0) for part in (curve[quarter : 2 * quarter], curve[-quarter:]))
    print("seconds, MB, threads, handles:", early, late)
    print([(report.delivered, report.reconnections, report.dropped, report.age_p99) for report in reports])
    assert ended
    assert all(report.delivered > seconds for report in reports), reports
    assert late[1] - early[1] < GROWTH_MB, curve
    assert (late[2:] <= early[2:]).all(), curve


def _draw(curve: list[Sample], picture: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    minutes = [sample.seconds / 60 for sample in curve]
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    memory, counts = figure.subplots(2, 1, sharex=True)
    memory.plot(minutes, [sample.megabytes for sample in curve])
    memory.set(ylabel="resident memory, MB", ylim=(0, 1.2 * max(sample.megabytes for sample in curve)))
    counts.plot(minutes, [sample.threads for sample in curve], label="threads")
    counts.plot(minutes, [sample.handles for sample in curve], label="file handles")
    counts.set(xlabel="minutes", ylim=(0, 1.2 * max(max(sample[2:]) for sample in curve)))
    counts.legend()
    figure.savefig(picture, dpi=110)
