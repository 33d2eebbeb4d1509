"""One live stream: what it is made of, what it counts, and what it reports."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from derain.runtime.live.ages import Ages, Rate
from derain.runtime.media.items import Frame, Source
from derain.runtime.pipeline import Derained

Policy: TypeAlias = Literal["drop-oldest", "drop-newest", "block"]
State: TypeAlias = Literal["connecting", "live", "stalled", "waiting", "ended", "failed"]
POLICIES: tuple[Policy, ...] = ("drop-oldest", "drop-newest", "block")
# A live stream keeps one frame waiting: a second one would only be older. A file keeps its decoder busy with more.
_WAITING: dict[Policy, int] = {"drop-oldest": 1, "drop-newest": 1, "block": 3}
_OUTBOX = 1


class SinkAwayError(Exception):
    """The sink cannot take this frame, but may take later ones."""


@dataclass(frozen=True)
class Reconnect:
    """How a source that ended, failed or stalled is opened again.

    Attributes:
        first, most: seconds before the first new attempt, and the most; each failure doubles it.
        stall: seconds without a frame after which a source counts as stalled.
        leave: whether a stalled source is left and opened again; False for a FIFO, of which there is only one: a second
            reader would take the first one's bytes.
        steady: seconds of frames after which the next failure counts as the first one again.
        after_end: whether a source that ended in order is opened again, too; one that fails or stalls always is.
        attempts: failures in a row before the first frame after which the stream ends; a source that has once worked is
            tried for ever.
    """

    first: float = 0.5
    most: float = 30.0
    stall: float = 5.0
    leave: bool = True
    steady: float = 5.0
    after_end: bool = True
    attempts: int = 4

    def delay(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row (1 or more)."""
        return min(self.most, self.first * 2.0 ** min(failures - 1, 32))


@dataclass(frozen=True)
class StreamSpec:
    """A stream to run.

    Attributes:
        name: unique within a run; shown to people.
        open: makes a new, not yet entered source; called again for each reconnection.
        infer: derains a frame; called by the run's one inference thread.
        deliver: takes each result and its time in seconds (that of a file's frame, else that of its arrival), in order,
            in a thread of the stream's own. :class:`SinkAwayError` drops the result; any other error ends the stream.
        finish: called in that thread after the last delivery, also after a failed one; keeps what was written.
        policy: what happens to a frame that comes while another is waiting; None for ``drop-oldest``, or ``block`` when
            the source turns out to have an end, such as a file behind a URL.
        reconnect: None for a source that ends once and for all, such as a file.
    """

    name: str
    open: Callable[[], Source]
    infer: Callable[[Frame], Derained]
    deliver: Callable[[Derained, float], None] = lambda derained, seconds: None
    finish: Callable[[], None] = lambda: None
    policy: Policy | None = None
    reconnect: Reconnect | None = field(default_factory=Reconnect)


@dataclass(frozen=True)
class StreamReport:
    """A stream at one moment.

    Attributes:
        state: ``connecting``, ``live``, ``stalled`` (no frame for a while), ``waiting`` (for the next attempt),
            ``ended`` (in order) or ``failed``.
        reason: the last thing that went wrong, or why it ended; empty when nothing did.
        captured, derained, delivered: frames so far.
        dropped: frames by cause: ``overtaken`` (a newer one came), ``busy`` (another was waiting: drop-newest),
            ``damaged`` (not decoded, so not among ``captured``), ``refused`` (the model could not take it), ``sink``
            (the sink was away), ``stopped`` (the stream ended first).
        reconnections: how often the source was opened again.
        age_p50, age_p99, age_max: seconds from a frame's arrival to its delivery.
        rate: frames a second, lately.
        size: width and height of the last frame.
        rain: intensity in the last frame, 0 to 1; None where nobody measured it.
        gated: the last frame was passed through untouched because it does not rain.
    """

    name: str
    state: State
    reason: str
    captured: int
    derained: int
    delivered: int
    dropped: dict[str, int]
    reconnections: int
    age_p50: float
    age_p99: float
    age_max: float
    rate: float
    size: tuple[int, int] | None
    rain: float | None
    gated: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Arrived:
    """A frame and when it came, in the clock's seconds."""

    frame: Frame
    at: float


class Stream:
    """The changing side of a stream. Everything in it is guarded by the run's one condition."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self.state: State = "connecting"
        self.policy: Policy = spec.policy or "drop-oldest"
        self.finite = False
        self.sink_problem = ""
        self.reason = ""
        self.waiting: deque[Arrived] = deque()
        self.outbox: deque[tuple[Derained, float]] = deque()
        self.generation = 0  # of the capturing thread: one that was given up finds another number here, and leaves
        self.capturing = True
        self.blocked = False
        self.busy = False
        self.finished = False
        self.failures = 0
        self.refusals = 0
        self.reconnections = 0
        self.index = 0
        self.captured = 0
        self.derained = 0
        self.delivered = 0
        self.dropped: Counter[str] = Counter()
        self.ages = Ages()
        self.rate = Rate()
        self.opened_at = 0.0
        self.last_arrival: float | None = None
        self.latest: Derained | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("ended", "failed")

    def has_room(self) -> bool:
        """Whether another frame may wait."""
        return len(self.waiting) < _WAITING[self.policy]

    def ready(self) -> bool:
        """Whether a frame waits and its result would have a place: one taken earlier would only grow old."""
        return bool(self.waiting) and len(self.outbox) < _OUTBOX and not self.busy

    def drained(self) -> bool:
        """Whether nothing is under way, and nothing will come."""
        return not (self.capturing or self.waiting or self.busy or self.outbox)

    def end(self, state: State, reason: str) -> None:
        """No more frames; what waits to be derained is dropped after a failure."""
        if self.ended:
            return
        self.state, self.reason, self.capturing = state, reason or self.reason, False
        self.generation += 1
        if state == "failed":
            if lost := len(self.waiting) + len(self.outbox):
                self.dropped["stopped"] += lost
            self.waiting.clear()
            self.outbox.clear()

    def report(self, now: float) -> StreamReport:
        """The stream at this moment."""
        latest = self.latest
        return StreamReport(
            name=self.spec.name,
            state=self.state,
            reason=self.reason,
            captured=self.captured,
            derained=self.derained,
            delivered=self.delivered,
            dropped=dict(self.dropped),
            reconnections=self.reconnections,
            age_p50=self.ages.percentile(0.5),
            age_p99=self.ages.percentile(0.99),
            age_max=self.ages.largest,
            rate=self.rate.value(now),
            size=None if latest is None else (latest.clean.shape[1], latest.clean.shape[0]),
            rain=None if latest is None else latest.intensity,
            gated=latest is not None and latest.gated,
        )
