"""A bounded hand-over between two threads that can be closed from either end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class AbortedError(Exception):
    """The other side gave up; the error that matters was raised there."""


class Channel(Generic[T]):
    """First in, first out, at most ``capacity`` items: a producer that is faster waits, and memory stays bounded."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._aborted = False

    def put(self, item: T) -> None:
        """Hand an item over, waiting for room.

        Raises:
            AbortedError: nobody will take it any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._capacity or self._aborted)
            if self._aborted:
                raise AbortedError
            self._items.append(item)
            self._changed.notify_all()

    def close(self) -> None:
        """No more items will come; those inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop everything and wake both sides."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Take items until the channel is closed and empty.

        Raises:
            AbortedError: the other side gave up.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed or self._aborted)
                if self._aborted:
                    raise AbortedError
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
