"""Reading a stream's source in a thread of its own, and opening it again when it ends, fails or stalls."""

from __future__ import annotations

import dataclasses
import logging

from derain.errors import DerainError, MissingDependencyError, UsageError
from derain.runtime.live.clock import Clock, Condition
from derain.runtime.live.stream import Arrived, Stream
from derain.runtime.media.items import Finite, Frame, Interruptible, Source

# Readers given up while they hang in a driver or a system call. Each holds a thread until the call returns; a source
# that hangs every time must not pile them up.
_MOST_HANGING = 4

log = logging.getLogger(__name__)


class Capture:
    """Fills a stream's queue of waiting frames.

    Args:
        stream: whose source is read.
        clock: where time comes from.
        changed: the run's condition, which guards the stream.
    """

    def __init__(self, stream: Stream, clock: Clock, changed: Condition) -> None:
        self._stream = stream
        self._clock = clock
        self._changed = changed
        self._readers = 0
        self._source: Source | None = None

    def start(self) -> None:
        """Start reading in a thread; the run's condition need not be held."""
        with self._changed:
            self._start_reader(0.0)

    def give_up_if_stalled(self) -> None:
        """Called with the condition held: leave a reader alone that has given nothing for too long, and start another.

        Opening counts from its beginning: a server that accepts and then says nothing stalls as well.
        """
        stream, policy = self._stream, self._stream.spec.reconnect
        if policy is None or not stream.capturing or stream.blocked or stream.state not in ("connecting", "live"):
            return
        since = stream.opened_at if stream.last_arrival is None else max(stream.last_arrival, stream.opened_at)
        # Connecting may take longer than the pause between two frames.
        patience = policy.stall * (1 if stream.state == "live" else 3)
        if self._clock.now() - since < patience:
            return
        if not policy.leave:
            stream.state = "stalled"
            return
        stream.generation += 1
        if isinstance(self._source, Interruptible):
            self._source.interrupt()
        if stream.finite:  # opened again, it would begin anew
            stream.end("failed", f"no frame for {patience:g} s")
            self._changed.notify_all()
            return
        if self._readers > _MOST_HANGING:
            stream.end("failed", f"its source hung {self._readers} times without returning")
            self._changed.notify_all()
            return
        self._note_failure(f"no frame for {patience:g} s")
        if not stream.ended:
            stream.state = "stalled"
            self._start_reader(policy.delay(stream.failures))
        self._changed.notify_all()

    def _start_reader(self, delay: float) -> None:
        generation = self._stream.generation
        self._readers += 1
        self._clock.start(lambda: self._read_all(generation, delay), f"derain-capture-{self._stream.spec.name}")

    def _read_all(self, generation: int, delay: float) -> None:
        """Open and read again and again, until the stream ends or this reader is given up."""
        stream, policy = self._stream, self._stream.spec.reconnect
        while self._pause(generation, delay):
            problem, final = self._read_once(generation)
            with self._changed:
                if stream.generation != generation:
                    break
                if final or policy is None or not (problem or policy.after_end):
                    stream.end("failed" if problem else "ended", problem)
                    self._changed.notify_all()
                    break
                self._note_failure(problem or "the source ended")
                if stream.ended:
                    self._changed.notify_all()
                    break
                delay = policy.delay(stream.failures)
                stream.state = "waiting"
                self._changed.notify_all()
        with self._changed:
            self._readers -= 1

    def _pause(self, generation: int, seconds: float) -> bool:
        """Wait before an attempt; False when this reader is not wanted any more."""
        stream = self._stream
        with self._changed:
            if seconds > 0:
                self._changed.wait_for(lambda: stream.generation != generation, seconds)
            if stream.generation != generation:
                return False
            stream.state = "connecting"
            stream.opened_at = self._clock.now()
            return True

    def _read_once(self, generation: int) -> tuple[str, bool]:
        """What went wrong, empty when the source ended in order; and whether another attempt is pointless."""
        damaged = 0
        finite = False
        try:
            with self._stream.spec.open() as source:
                self._source = source
                finite = isinstance(source, Finite) and source.finite
                if finite:
                    self._take_every_frame()
                for item in source:
                    if source.damaged > damaged:
                        self._count_damaged(source.damaged - damaged)
                        damaged = source.damaged
                    if isinstance(item, Frame) and not self._accept(item, generation):
                        return "", False
                self._count_damaged(source.damaged - damaged)
        except (UsageError, MissingDependencyError) as error:
            return str(error), True
        # A file behind a URL that broke off would begin anew, and its frames would come twice.
        except DerainError as error:
            return str(error), finite
        except Exception as error:
            return f"{type(error).__name__}: {error}", finite
        return "", finite

    def _accept(self, frame: Frame, generation: int) -> bool:
        """Let a frame wait, by the stream's policy; False when this reader is not wanted any more."""
        stream = self._stream
        with self._changed:
            if stream.generation != generation:
                return False
            now = self._clock.now()
            if stream.state != "live":
                stream.state = "live"
            elif self._stream.failures and now - stream.opened_at >= self._steady():
                stream.failures = 0
            stream.last_arrival = now
            stream.captured += 1
            if not stream.has_room():
                if stream.policy == "drop-newest":
                    stream.dropped["busy"] += 1
                    return True
                if stream.policy == "drop-oldest":
                    stream.waiting.popleft()
                    stream.dropped["overtaken"] += 1
                else:
                    stream.blocked = True
                    self._changed.wait_for(lambda: stream.has_room() or stream.generation != generation)
                    stream.blocked = False
                    if stream.generation != generation:
                        stream.dropped["stopped"] += 1
                        return False
                    now = stream.last_arrival = self._clock.now()
            # Numbers go on across reconnections, so that a sink sees one stream.
            stream.waiting.append(Arrived(dataclasses.replace(frame, index=stream.index), now))
            stream.index += 1
            self._changed.notify_all()
            return True

    def _take_every_frame(self) -> None:
        """A source that has an end waits, so nothing need be dropped unless that was asked for."""
        with self._changed:
            self._stream.finite = True
            self._stream.policy = self._stream.spec.policy or "block"

    def _count_damaged(self, frames: int) -> None:
        with self._changed:
            self._stream.dropped.update({"damaged": frames} if frames else {})

    def _steady(self) -> float:
        policy = self._stream.spec.reconnect
        return policy.steady if policy is not None else 0.0

    def _note_failure(self, problem: str) -> None:
        stream, policy = self._stream, self._stream.spec.reconnect
        assert policy is not None
        stream.failures += 1
        stream.reconnections += 1
        stream.reason = problem
        log.warning("%s: %s", stream.spec.name, problem)
        if stream.last_arrival is None and stream.failures >= policy.attempts:
            stream.end("failed", f"{problem} ({stream.failures} attempts)")
