"""Time and waiting as the live pipeline sees them, so that a test can run ten minutes in a few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Condition(Protocol):
    """The part of :class:`threading.Condition` that is used."""

    def __enter__(self) -> bool: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait, with the lock released, until the predicate holds or ``timeout`` seconds have passed."""

    def notify_all(self) -> None:
        """Have every waiting thread look at its predicate again."""


class Clock(Protocol):
    """Where time comes from and how threads are started."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def condition(self) -> Condition:
        """A new condition whose timeouts follow this clock."""

    def start(self, target: Callable[[], None], name: str) -> None:
        """Run ``target`` in a thread that does not keep the process alive."""


class SystemClock:
    """The machine's monotonic clock and ordinary threads."""

    def now(self) -> float:
        return time.monotonic()

    def condition(self) -> Condition:
        return threading.Condition()

    def start(self, target: Callable[[], None], name: str) -> None:
        threading.Thread(target=target, name=name, daemon=True).start()
