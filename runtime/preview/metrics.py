"""The streams' figures for Prometheus, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from derain.runtime.live.run import LiveRun

_STATES = ("connecting", "live", "stalled", "waiting", "ended", "failed")


class StreamCollector(Collector):
    """Gives the metrics of a run's streams, each with the label ``stream``."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus' client for each request."""
        frames = CounterMetricFamily("derain_frames", "Frames that passed a stage.", labels=["stream", "stage"])
        dropped = CounterMetricFamily("derain_dropped_frames", "Frames dropped, by cause.", labels=["stream", "cause"])
        reconnections = CounterMetricFamily("derain_reconnections", "Times the source was reopened.", labels=["stream"])
        age = GaugeMetricFamily(
            "derain_frame_age_seconds", "From arrival to delivery, since the start.", labels=["stream", "quantile"]
        )
        rate = GaugeMetricFamily("derain_frame_rate", "Frames a second, lately.", labels=["stream"])
        rain = GaugeMetricFamily("derain_rain_intensity", "Rain, 0 dry to 1.", labels=["stream"])
        state = GaugeMetricFamily("derain_stream_state", "1 for the state it is in.", labels=["stream", "state"])
        for report in self._run.reports():
            name = report.name
            for stage in ("captured", "derained", "delivered"):
                frames.add_metric([name, stage], getattr(report, stage))
            for cause, count in report.dropped.items():
                dropped.add_metric([name, cause], count)
            reconnections.add_metric([name], report.reconnections)
            age.add_metric([name, "0.5"], report.age_p50)
            age.add_metric([name, "0.99"], report.age_p99)
            rate.add_metric([name], report.rate)
            if report.rain is not None:
                rain.add_metric([name], report.rain)
            for possible in _STATES:
                state.add_metric([name, possible], float(report.state == possible))
        yield from (frames, dropped, reconnections, age, rate, rain, state)
