"""Several live streams through one model: newest frame first, every drop counted, faults kept to their stream.

Each stream has a thread that captures and one that delivers; one thread infers for all of them, in turns. A frame is
taken for inference only when its result has a place to go, so that what comes out is as young as it can be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from derain.errors import DerainError, UsageError
from derain.runtime.live.capture import Capture
from derain.runtime.live.clock import Clock, Condition, SystemClock
from derain.runtime.live.stream import SinkAwayError, Stream, StreamReport, StreamSpec
from derain.runtime.pipeline import Derained

_WATCH_SECONDS = 0.25
# A frame or two may be refused; a model that takes none will not take the next one either.
_MOST_REFUSALS = 10

log = logging.getLogger(__name__)


class LiveRun:
    """Runs streams until they end or :meth:`stop` is called. Its methods may be called from any thread.

    Args:
        specs: the streams; their names differ.
        clock: where time comes from.
        drain: seconds that :meth:`stop` gives what is under way; a sink that hangs longer is left behind.

    Raises:
        UsageError: no stream, or two of one name.
    """

    def __init__(self, specs: Sequence[StreamSpec], clock: Clock | None = None, drain: float = 10.0) -> None:
        names = [spec.name for spec in specs]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"The streams are named {names}", expected="at least one stream, each with its own name")
        self._clock = clock or SystemClock()
        self._changed: Condition = self._clock.condition()
        self._streams = {spec.name: Stream(spec) for spec in specs}
        self._order = list(self._streams.values())
        self._captures = {name: Capture(s, self._clock, self._changed) for name, s in self._streams.items()}
        self._drain = drain
        self._deadline: float | None = None
        self._begin = 0.0

    def start(self) -> None:
        """Start every thread and return."""
        self._begin = self._clock.now()
        for stream in self._order:
            name = stream.spec.name
            self._captures[name].start()
            self._clock.start(lambda stream=stream: self._deliver_all(stream), f"derain-deliver-{name}")  # type: ignore[misc]
        self._clock.start(self._infer_all, "derain-infer")
        self._clock.start(self._watch, "derain-watch")

    def stop(self) -> None:
        """Read no more; finish what is under way. Returns at once; :meth:`wait` tells when it is done."""
        with self._changed:
            if self._deadline is None:
                self._deadline = self._clock.now() + self._drain
            for stream in self._order:
                if not stream.ended:
                    stream.end("ended", "stopped")
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every stream has ended and delivered; False when ``timeout`` seconds passed first."""
        with self._changed:
            return self._changed.wait_for(self._is_over, timeout)

    def reports(self) -> list[StreamReport]:
        """Every stream at this moment, in the order given."""
        with self._changed:
            now = self._clock.now()
            return [stream.report(now) for stream in self._order]

    def latest(self, name: str) -> Derained | None:
        """The newest result of a stream; None before the first. Taking it costs the pipeline nothing.

        Raises:
            UsageError: no stream has that name.
        """
        try:
            stream = self._streams[name]
        except KeyError:
            raise UsageError(f"There is no stream '{name}'", expected=f"one of: {', '.join(self._streams)}") from None
        with self._changed:
            return stream.latest

    @property
    def seconds(self) -> float:
        """Since :meth:`start`."""
        return self._clock.now() - self._begin

    def _is_over(self) -> bool:
        return all(stream.finished for stream in self._order)

    def _infer_all(self) -> None:
        turn = 0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: any(s.ready() for s in self._order) or all(_quiet(s) for s in self._order)
                )
                place = next(
                    (p for p in range(turn, turn + len(self._order)) if self._order[p % len(self._order)].ready()), None
                )
                if place is None:
                    return
                stream = self._order[place % len(self._order)]
                turn = place % len(self._order) + 1
                arrived = stream.waiting.popleft()
                stream.busy = True
                self._changed.notify_all()
            self._infer_one(stream, lambda s=stream, a=arrived: s.spec.infer(a.frame), arrived.at)  # type: ignore[misc]

    def _infer_one(self, stream: Stream, infer: Callable[[], Derained], arrived: float) -> None:
        derained, problem = None, ""
        try:
            derained = infer()
        except Exception as error:
            problem = _told(error)
        with self._changed:
            stream.busy = False
            if derained is None:
                stream.dropped["refused"] += 1
                stream.refusals += 1
                stream.reason = problem
                log.warning("%s: a frame was refused: %s", stream.spec.name, problem)
                if stream.refusals >= _MOST_REFUSALS:
                    stream.end("failed", problem)
            elif stream.state == "failed":
                stream.dropped["stopped"] += 1
            else:
                stream.refusals = 0
                stream.derained += 1
                stream.latest = derained
                stream.outbox.append((derained, arrived))
            self._changed.notify_all()

    def _deliver_all(self, stream: Stream) -> None:
        spec = stream.spec
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(stream.outbox) or stream.drained())
                if not stream.outbox:
                    break
                derained, arrived = stream.outbox.popleft()
                self._changed.notify_all()
            away, problem = False, ""
            seconds = derained.frame.seconds
            try:
                spec.deliver(derained, arrived if seconds is None else seconds)
            except SinkAwayError as error:
                away, problem = True, str(error)
            except Exception as error:
                problem = _told(error)
            with self._changed:
                if away:
                    stream.dropped["sink"] += 1
                    stream.reason = stream.sink_problem = problem
                elif problem:
                    stream.dropped["stopped"] += 1
                    stream.end("failed", problem)
                    log.warning("%s ends: %s", spec.name, problem)  # now: the other streams may go on for days
                else:
                    now = self._clock.now()
                    stream.delivered += 1
                    stream.ages.add(now - arrived)
                    stream.rate.add(now)
                self._changed.notify_all()
        problem = ""
        try:
            spec.finish()
        except Exception as error:
            problem = _told(error)
        with self._changed:
            if not problem and stream.policy == "block" and stream.dropped["sink"]:
                # Nothing of a file may be lost without being told.
                problem = f"{stream.dropped['sink']} frames were not delivered: {stream.sink_problem}"
            if problem and stream.state != "failed":
                stream.state, stream.reason = "failed", problem
            elif not stream.ended:
                stream.state = "ended"
            stream.finished = True
            self._changed.notify_all()

    def _watch(self) -> None:
        """Give up sources that stall, and sinks that hang while everything else is done."""
        while True:
            with self._changed:
                if self._changed.wait_for(self._is_over, _WATCH_SECONDS):
                    return
                for stream in self._order:
                    self._captures[stream.spec.name].give_up_if_stalled()
                if self._deadline is not None and self._clock.now() >= self._deadline:
                    for stream in self._order:
                        if not stream.finished:
                            stream.state, stream.reason = "failed", f"it hung for {self._drain:g} s while stopping"
                            stream.finished = True
                    self._changed.notify_all()
                    return


def _quiet(stream: Stream) -> bool:
    """No frame of this stream will need the inference thread again."""
    return not (stream.capturing or stream.waiting or stream.busy)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, DerainError) else f"{type(error).__name__}: {error}"
