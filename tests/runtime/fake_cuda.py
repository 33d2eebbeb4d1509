"""An honest fake GPU: it runs nothing earlier than it must, and accepts nothing that a real one would get wrong.

Work is queued in streams and runs only when something forces it: a synchronisation, and then only what the
synchronised work depends on. So a missing wait leaves old bytes behind. Beside that, every access of queued work to
device or page-locked memory is held against every other one: two accesses to the same memory, one of them writing, with
no chain of streams and events between them, are a race, whatever order they happened to run in. Freed memory, events
and streams are never given out again and any use of them fails; what is not given back at the end is a leak.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.runtime.backends.cuda_api import CudaError, HostBuffer


class DeviceFaultError(AssertionError):
    """What a real GPU would answer with wrong pictures or a crash."""


@dataclass
class Memory:
    array: NDArray[np.uint8]
    kind: str
    address: int
    alive: bool = True


@dataclass(eq=False)
class Work:
    """One piece of queued work: what it reads and writes, and what must be over before."""

    name: str
    run: Callable[[], None]
    reads: list[tuple[int, int]]
    writes: list[tuple[int, int]]
    after: set[Work] = field(default_factory=set)
    done: bool = False
    known_over: bool = False

    def ancestors(self) -> set[Work]:
        found: set[Work] = set()
        open_ends = list(self.after)
        while open_ends:
            work = open_ends.pop()
            if work not in found:
                found.add(work)
                open_ends += work.after
        return found


Spans = list[tuple[int, int]]


@dataclass
class Event:
    last: set[Work] | None = None  # None: never recorded


@dataclass
class Graph:
    works: list[tuple[str, Callable[[], None], Spans, Spans]]


def thread_safe(kind: type[Any]) -> type[Any]:
    """Class decorator: one call at a time, as the driver keeps its books; ``current`` is each thread's own affair."""
    for name, method in list(vars(kind).items()):
        if callable(method) and not name.startswith("_") and name != "current":
            setattr(kind, name, _one_at_a_time(method))
    return kind


def _one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def locked(self: FakeCuda, *arguments: Any, **options: Any) -> Any:
        with self._lock:
            return method(self, *arguments, **options)

    return locked


@thread_safe
class FakeCuda:
    """Implements :class:`derain.runtime.backends.cuda_api.CudaApi`."""

    def __init__(self, integrated: bool = False, memory: int = 1 << 30) -> None:
        self.integrated = integrated
        self.description = "a fake GPU"
        self.memory = memory
        self.calls: list[str] = []
        self.executed: list[str] = []
        self.copies = 0
        self._memories: dict[int, Memory] = {}
        self._next_address = 0x1000_0000
        self._next_handle = 100
        self._tails: dict[int, set[Work]] = {0: set()}
        self._events: dict[int, Event] = {}
        self._graphs: dict[int, Graph] = {}
        self._capturing: dict[int, Graph] = {}
        self._history: list[Work] = []
        self._over: set[Work] = set()  # work the host has waited for
        self._failures: dict[str, list[tuple[int, str]]] = {}
        self._counts: dict[str, int] = {}
        self._current = threading.local()
        self._lock = threading.RLock()
        self.lost = False

    # ---- what tests do -------------------------------------------------------------------------------------------

    def fail(self, call: str, code: str, nth: int = 1) -> None:
        """Let the nth call from now on of that name fail with that CUDA error."""
        self._failures.setdefault(call, []).append((self._counts.get(call, 0) + nth, code))

    def require_clean(self) -> None:
        """Everything given back."""
        alive = [f"{memory.kind} memory of {memory.array.size}" for memory in self._memories.values() if memory.alive]
        alive += [f"stream {stream}" for stream in self._tails if stream]
        alive += [f"event {event}" for event in self._events] + [f"graph {graph}" for graph in self._graphs]
        if alive:
            raise DeviceFaultError(f"leaked: {', '.join(alive)}")

    def application_array(self, values: NDArray[Any]) -> int:
        """Device memory of the application with that content."""
        address = self.allocate(values.nbytes)
        self._memories[address].array[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        return address

    def content(self, address: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Device memory as it is now: with nothing run that nobody waited for."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._bytes(address, size).view(dtype).reshape(shape).copy()

    def queue(self, stream: int, name: str, run: Callable[[], None], reads: Any = (), writes: Any = ()) -> None:
        """Work of the application, or of an engine, in a stream."""
        self._queue(stream, name, run, list(reads), list(writes))

    # ---- the interface -------------------------------------------------------------------------------------------

    @contextmanager
    def current(self) -> Iterator[None]:
        self._current.depth = self.depth + 1
        try:
            yield
        finally:
            self._current.depth -= 1

    @property
    def depth(self) -> int:
        """How many times the context is current in this thread."""
        return int(getattr(self._current, "depth", 0))

    def allocate(self, size: int) -> int:
        self._enter("allocate")
        return self._new_memory(size, "device").address

    def free(self, address: int) -> None:
        self._enter("free")
        self._free(address, "device")

    def allocate_host(self, size: int, mapped: bool) -> HostBuffer:
        self._enter("allocate_host")
        memory = self._new_memory(size, "host")
        return HostBuffer(memory.array, memory.address if mapped else None, memory.address)

    def free_host(self, buffer: HostBuffer) -> None:
        self._enter("free_host")
        self._free(buffer.handle, "host")

    def create_stream(self) -> int:
        self._enter("create_stream")
        self._next_handle += 1
        self._tails[self._next_handle] = set()
        return self._next_handle

    def destroy_stream(self, stream: int) -> None:
        self._enter("destroy_stream")
        if not self.lost and any(not work.done for work in self._tail(stream)):
            raise DeviceFaultError(f"stream {stream} is destroyed while it has work")
        del self._tails[stream]

    def synchronize(self, stream: int) -> None:
        self._enter("synchronize")
        if stream in self._capturing:
            raise DeviceFaultError("a stream is synchronised while it is captured")
        self._finish(self._tail(stream))

    def create_event(self) -> int:
        self._enter("create_event")
        self._next_handle += 1
        self._events[self._next_handle] = Event()
        return self._next_handle

    def destroy_event(self, event: int) -> None:
        self._enter("destroy_event")
        self._event(event)
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        self._enter("record")
        self._event(event).last = set(self._tail(stream))

    def wait(self, stream: int, event: int) -> None:
        self._enter("wait")
        recorded = self._event(event).last
        # As in CUDA, an event that was never recorded counts as over.
        self._tails[stream] = self._tail(stream) | (recorded or set())

    def synchronize_event(self, event: int) -> None:
        self._enter("synchronize_event")
        self._finish(self._event(event).last or set())

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        self._enter("copy_in")
        self.copies += 1
        host = self._host_address(source)
        target = self._bytes(address, source.nbytes)
        reads = [(host, source.nbytes)] if host else []
        self._queue(stream, "copy_in", lambda: np.copyto(target, source), reads, [(address, source.nbytes)])

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        self._enter("copy_out")
        self.copies += 1
        host = self._host_address(target)
        source = self._bytes(address, target.nbytes)
        writes = [(host, target.nbytes)] if host else []
        self._queue(stream, "copy_out", lambda: np.copyto(target, source), [(address, target.nbytes)], writes)

    def begin_capture(self, stream: int) -> None:
        self._enter("begin_capture")
        self._tail(stream)
        self._capturing[stream] = Graph([])

    def end_capture(self, stream: int) -> int:
        self._enter("end_capture")
        self._next_handle += 1
        self._graphs[self._next_handle] = self._capturing.pop(stream)
        return self._next_handle

    def launch_graph(self, graph: int, stream: int) -> None:
        self._enter("launch_graph")
        if graph not in self._graphs:
            raise DeviceFaultError(f"graph {graph} does not exist any more")
        for name, run, reads, writes in self._graphs[graph].works:
            if getattr(run, "stale", bool)():
                raise DeviceFaultError("a graph is replayed whose context has changed its shape since")
            self._queue(stream, f"graph:{name}", run, reads, writes)

    def destroy_graph(self, graph: int) -> None:
        self._enter("destroy_graph")
        del self._graphs[graph]

    def free_memory(self) -> tuple[int, int]:
        used = sum(memory.array.size for memory in self._memories.values() if memory.alive and memory.kind == "device")
        return self.memory - used, self.memory

    # ---- inside --------------------------------------------------------------------------------------------------

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        self._counts[call] = self._counts.get(call, 0) + 1
        if not self.depth and not call.startswith("application"):
            raise DeviceFaultError(f"{call} without a current context")
        if self.lost:
            raise CudaError(call, "cudaErrorIllegalAddress", "the context is lost")
        for nth, code in self._failures.get(call, []):
            if self._counts[call] == nth:
                error = CudaError(call, code, "injected")
                self.lost = error.lost
                raise error

    def _new_memory(self, size: int, kind: str) -> Memory:
        if kind == "device" and size > self.free_memory()[0]:
            raise CudaError("allocate", "cudaErrorMemoryAllocation", "out of memory")
        # Old bytes, not zeros: nobody may rely on what fresh memory holds.
        memory = Memory(np.full(size, 0xA5, np.uint8), kind, self._next_address)
        self._next_address += (size + 4095) // 4096 * 4096 + 4096
        self._memories[memory.address] = memory
        return memory

    def _free(self, address: int, kind: str) -> None:
        memory = self._memories.get(address)
        if memory is None or not memory.alive or memory.kind != kind:
            raise DeviceFaultError(f"{kind} memory {address:#x} is freed twice, or was never allocated")
        for work in self._history:
            if not work.done and any(self._overlap(address, memory.array.size, *span) for span in _spans(work)):
                raise DeviceFaultError(f"memory is freed while '{work.name}' uses it")
        memory.alive = False

    @staticmethod
    def _overlap(a: int, size: int, b: int, other: int) -> bool:
        return a < b + other and b < a + size

    def _bytes(self, address: int, size: int) -> NDArray[np.uint8]:
        for memory in self._memories.values():
            if memory.address <= address < memory.address + memory.array.size:
                if not memory.alive:
                    raise DeviceFaultError(f"use of freed {memory.kind} memory {address:#x}")
                start = address - memory.address
                if start + size > memory.array.size:
                    raise DeviceFaultError(f"{size} bytes at {address:#x} reach past the end of the memory")
                return memory.array[start : start + size]
        raise DeviceFaultError(f"no memory at {address:#x}")

    def _host_address(self, array: NDArray[np.uint8]) -> int | None:
        """Where page-locked memory of ours lies; None for the application's own."""
        start = array.__array_interface__["data"][0]
        for memory in self._memories.values():
            base = memory.array.__array_interface__["data"][0]
            if memory.kind == "host" and base <= start < base + memory.array.size:
                if not memory.alive:
                    raise DeviceFaultError("use of freed host memory")
                return int(memory.address + start - base)
        return None

    def _tail(self, stream: int) -> set[Work]:
        if stream not in self._tails:
            raise DeviceFaultError(f"stream {stream} does not exist (any more)")
        return self._tails[stream]

    def _event(self, event: int) -> Event:
        if event not in self._events:
            raise DeviceFaultError(f"event {event} does not exist (any more)")
        return self._events[event]

    def _queue(self, stream: int, name: str, run: Callable[[], None], reads: Spans, writes: Spans) -> None:
        tail = self._tail(stream)
        if stream in self._capturing:
            self._capturing[stream].works.append((name, run, reads, writes))
            return
        for address, size in (*reads, *writes):
            self._bytes(address, size)
        work = Work(name, run, reads, writes, after=set(tail))
        before = work.ancestors() | self._over
        for other in self._history:
            if other not in before and self._conflict(work, other):
                raise DeviceFaultError(f"race: nothing orders '{name}' after '{other.name}', and they share memory")
        self._history.append(work)
        self._tails[stream] = {work}

    def _conflict(self, work: Work, other: Work) -> bool:
        pairs = [(a, b) for a in work.writes for b in (*other.reads, *other.writes)]
        pairs += [(a, b) for a in work.reads for b in other.writes]
        return any(self._overlap(*a, *b) for a, b in pairs)

    def _finish(self, works: set[Work]) -> None:
        """Run exactly what the host now waits for, in an order that the dependencies allow."""
        needed = set(works)
        for work in works:
            needed |= work.ancestors()
        for work in self._history:  # a valid order: work never depends on later work
            if work in needed and not work.done:
                for span in _spans(work):
                    self._bytes(*span)
                work.run()
                work.done = True
                self.executed.append(work.name)
        self._over |= needed
        self._history = [work for work in self._history if work not in self._over]


def _spans(work: Work) -> list[tuple[int, int]]:
    return [*work.reads, *work.writes]
