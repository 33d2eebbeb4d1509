"""Several streams through one model. Run: python streams.py front=rtsp://... rear=v4l2:///dev/video0"""

import sys

from derain.runtime.live.api import Pipeline

sources = dict(argument.split("=", 1) for argument in sys.argv[1:])
with Pipeline("nano", sources, gate="auto") as pipeline:
    for result in pipeline:
        state = "dry" if result.gated else "rain"
        print(f"{result.stream} {result.index}: {state}, intensity {result.intensity:.2f}, {result.clean.shape}")
    for report in pipeline.reports():
        print(report.name, report.state, report.reason, report.dropped)
