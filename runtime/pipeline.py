"""Decode, infer and encode side by side, each in a thread of its own, in order and with bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from derain.runtime.channel import AbortedError, Channel
from derain.runtime.media.items import Frame, Item, Passenger, Picture
from derain.runtime.ports import RainMap
from derain.runtime.statistics import RunStats, Stopwatch

# Two waiting frames keep a stage busy while its neighbour hesitates; more would only cost memory and latency.
_WAITING = 2
# Packets of sound between frames that are under way: more of them than frames, and small.
_WAITING_PASSENGERS = 64
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Derained:
    """A frame with its result.

    Attributes:
        clean: uint8 (H, W, 3) BGR; the frame's own pixels where ``gated``.
        rain: float32 (H, W) in [0, 1], if it was asked for.
        intensity: of the rain in the whole frame, 0 to 1, where a rain gate measured it.
        gated: a rain gate let the frame pass untouched.
    """

    frame: Frame
    clean: Picture
    rain: RainMap | None = None
    intensity: float | None = None
    gated: bool = False


Outcome: TypeAlias = Derained | Passenger


@runtime_checkable
class Overlapped(Protocol):
    """Inference that has several frames under way at once; see :class:`derain.runtime.flight.Flight`.

    ``begin`` is called in one thread and ``finish`` in another, in the same order, with at most ``slots`` frames
    between the two.
    """

    slots: int

    def begin(self, frame: Frame) -> Any:
        """Send a frame on its way."""

    def finish(self, begun: Any) -> Derained:
        """Wait for its result."""

    def abandon(self) -> None:
        """Let go of frames that were begun and will not be finished; called when both threads have ended."""


Infer: TypeAlias = Callable[[Frame], Derained] | Overlapped


def run(
    source: Iterable[Item],
    infer: Infer,
    deliver: Callable[[Outcome], None],
    *,
    stop: threading.Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> RunStats:
    """Move every item of ``source`` through ``infer`` to ``deliver``.

    The three run in threads of their own; the calling thread waits, so that signals reach it. Frames and passengers
    (sound) keep their order. When a stage raises, the others stop and the error is raised here, once.

    Args:
        source: read in the first thread; ends when it is exhausted.
        infer: called for frames only, in the second thread; or several frames at once under way, in two threads.
        deliver: called for every outcome, in the third thread.
        stop: when set, no further item is read; what is under way is finished.
        progress: called in this thread with the number of frames delivered, a few times a second and at the end.

    Raises:
        KeyboardInterrupt: stopped before the first frame was delivered, so there is nothing to keep.
    """
    return _Run(source, infer, deliver, stop or threading.Event()).go(progress)


class _Run:
    def __init__(
        self,
        source: Iterable[Item],
        infer: Infer,
        deliver: Callable[[Outcome], None],
        stop: threading.Event,
    ) -> None:
        self._source = source
        self._infer = infer
        self._deliver = deliver
        self._stop = stop
        self._decoded: Channel[Item] = Channel(_WAITING)
        self._derained: Channel[Outcome] = Channel(_WAITING)
        self._begun: Channel[tuple[Any, float] | Passenger] = Channel(_WAITING_PASSENGERS)
        self._slots: Channel[None] = Channel(infer.slots if isinstance(infer, Overlapped) else 0)
        self._watches = {"decode": Stopwatch(), "infer": Stopwatch(), "encode": Stopwatch()}
        self._error: BaseException | None = None
        self._guard = threading.Lock()
        self._stopped = False
        self.frames = 0

    def go(self, progress: Callable[[int], None] | None) -> RunStats:
        begin = time.perf_counter()
        threads = [
            threading.Thread(target=self._guarded, args=(stage,), name=f"derain-{name}", daemon=True)
            for name, stage in self._stages().items()
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_POLL_SECONDS)
                    if progress is not None:
                        progress(self.frames)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            for thread in threads:
                thread.join()
            if isinstance(self._infer, Overlapped):
                self._infer.abandon()
        if self._error is not None:
            raise self._error
        if self._stopped and not self.frames:
            raise KeyboardInterrupt
        if progress is not None:
            progress(self.frames)
        stages_ms = {name: watch.result() for name, watch in self._watches.items()}
        at_once = self._infer.slots if isinstance(self._infer, Overlapped) else 1
        return RunStats(self.frames, time.perf_counter() - begin, stages_ms, self._stopped, at_once)

    def _stages(self) -> dict[str, Callable[[], None]]:
        infer = self._infer
        middle: dict[str, Callable[[], None]]
        if isinstance(infer, Overlapped):
            middle = {"begin": lambda: self._begin_all(infer), "finish": lambda: self._finish_all(infer)}
        else:
            middle = {"infer": lambda: self._infer_all(infer)}
        return {"decode": self._decode_all, **middle, "deliver": self._deliver_all}

    def _guarded(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except AbortedError:
            pass  # the stage that failed has told why
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._guard:
            if self._error is None:
                self._error = error
        for channel in (self._decoded, self._derained, self._begun, self._slots):
            channel.abort()

    def _decode_all(self) -> None:
        for item in self._timed_items():
            self._decoded.put(item)
        self._decoded.close()

    def _timed_items(self) -> Iterator[Item]:
        items = iter(self._source)
        while True:
            if self._stop.is_set():
                self._stopped = True
                return
            begin = time.perf_counter()
            item = next(items, None)
            if item is None:
                return
            if isinstance(item, Frame):
                self._watches["decode"].add(time.perf_counter() - begin)
            yield item

    def _infer_all(self, infer: Callable[[Frame], Derained]) -> None:
        for item in self._decoded:
            if isinstance(item, Passenger):
                self._derained.put(item)
                continue
            begin = time.perf_counter()
            derained = infer(item)
            self._watches["infer"].add(time.perf_counter() - begin)
            self._derained.put(derained)
        self._derained.close()

    def _begin_all(self, infer: Overlapped) -> None:
        for _ in range(infer.slots):
            self._slots.put(None)
        slots = iter(self._slots)
        for item in self._decoded:
            if isinstance(item, Passenger):
                self._begun.put(item)
                continue
            next(slots)
            begin = time.perf_counter()
            self._begun.put((infer.begin(item), begin))
        self._begun.close()

    def _finish_all(self, infer: Overlapped) -> None:
        for item in self._begun:
            if isinstance(item, Passenger):
                self._derained.put(item)
                continue
            begun, begin = item
            derained = infer.finish(begun)
            self._watches["infer"].add(time.perf_counter() - begin)
            self._slots.put(None)
            self._derained.put(derained)
        self._derained.close()

    def _deliver_all(self) -> None:
        for outcome in self._derained:
            if isinstance(outcome, Passenger):
                self._deliver(outcome)
                continue
            begin = time.perf_counter()
            self._deliver(outcome)
            self._watches["encode"].add(time.perf_counter() - begin)
            self.frames += 1
