"""A clock whose time passes only while every thread waits: minutes of streaming in seconds, the same each time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class VirtualClock:
    """Threads started by it, and the test's own thread, share one lock; only waiting lets time pass."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._now = 0.0
        self._threads = 1
        self._waiters: list[_Waiter] = []

    def now(self) -> float:
        return self._now

    def condition(self) -> VirtualCondition:
        return VirtualCondition(self)

    def sleep(self, seconds: float) -> None:
        self.wait_for(lambda: False, seconds)

    def start(self, target: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                target()
            finally:
                with self.lock:
                    self._threads -= 1
                    self.wake()

        with self.lock:
            self._threads += 1
        threading.Thread(target=run, name=name, daemon=True).start()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        with self.lock:
            waiter = _Waiter(self.lock, predicate, None if timeout is None else self._now + timeout)
            while not predicate():
                if waiter.is_due(self._now):
                    return False
                self._waiters.append(waiter)
                self.wake()
                if not waiter.called:
                    waiter.turn.wait()
                self._waiters.remove(waiter)
                waiter.called = False
            return True

    def wake(self) -> None:
        """Call those whose turn it is; when all wait and it is nobody's, time goes on to the next deadline."""
        called = [waiter for waiter in self._waiters if waiter.called or waiter.predicate() or waiter.is_due(self._now)]
        if not called and len(self._waiters) == self._threads:
            deadlines = [waiter.deadline for waiter in self._waiters if waiter.deadline is not None]
            if deadlines:
                self._now = max(self._now, min(deadlines))
                called = [waiter for waiter in self._waiters if waiter.is_due(self._now)]
        for waiter in called:
            waiter.called = True
            waiter.turn.notify()


class _Waiter:
    def __init__(self, lock: threading.RLock, predicate: Callable[[], bool], deadline: float | None) -> None:  # type: ignore[valid-type]
        self.turn = threading.Condition(lock)  # type: ignore[arg-type]
        self.predicate = predicate
        self.deadline = deadline
        self.called = False

    def is_due(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline


class VirtualCondition:
    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def __enter__(self) -> bool:
        return self._clock.lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clock.lock.release()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        return self._clock.wait_for(predicate, timeout)

    def notify_all(self) -> None:
        self._clock.wake()
