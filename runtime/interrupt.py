"""Ctrl-C and SIGTERM as a polite request first: finish what is under way, then stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest(threading.Event):
    """Set by the first signal; ``signal_number`` tells which one it was."""

    signal_number: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While the block runs, the first SIGINT or SIGTERM sets the request; a second one raises ``KeyboardInterrupt``.

    Signals can be caught in the main thread only; in another thread the request is never set.
    """
    request = StopRequest()

    def received(number: int, _frame: FrameType | None) -> None:
        if request.is_set():
            raise KeyboardInterrupt
        request.signal_number = number
        request.set()

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, received) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
