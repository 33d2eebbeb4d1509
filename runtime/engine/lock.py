"""One process at a time: a lock that the system gives back when its holder dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where engines are built by one process at a time or twice
    fcntl = None  # type: ignore[assignment]

_POLL_SECONDS = 0.1


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``; it is made, and stays.

    The file is never removed: a process that waits on a removed file would hold a lock that nobody else sees.

    Args:
        waiting: called once when another process holds the lock.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        told = False
        while not _try_lock(descriptor):
            if not told and waiting is not None:
                waiting()
            told = True
            time.sleep(_POLL_SECONDS)  # not a blocking wait, so that Ctrl-C ends it at once
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
