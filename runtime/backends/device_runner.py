"""Frames through an engine at the device's pace: slots in flight, overlapping copies, CUDA graphs.

Three streams carry the work: copies in, computing, copies out. Events order them, so that while one frame computes the
next one's pixels go in and the previous one's come out. Where CPU and GPU share memory (Jetson) there is nothing to
copy, and one stream is enough. No memory is allocated for a frame unless it is larger than all before it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from derain.errors import BackendError, UsageError
from derain.runtime.backends.base import Buffers
from derain.runtime.backends.cuda_api import CudaApi, CudaError
from derain.runtime.backends.device_array import DeviceArray, wait_for
from derain.runtime.backends.device_slot import Shapes, Slot
from derain.runtime.backends.engine_api import DeviceEngine, TensorInfo

DEFAULT_SLOTS = 3


@dataclass(frozen=True)
class Ticket:
    """A frame on its way; hand it to :meth:`DeviceRunner.collect` of ``runner`` once."""

    runner: DeviceRunner
    slot: int
    serial: int


class DeviceRunner:
    """Runs one engine. May be called from several threads; the calls are short, but for waiting in :meth:`collect`.

    Args:
        cuda: the CUDA layer.
        engine: stays the caller's, and must be closed after the runner.
        slots: frames that may be in flight at once.
        graphs: replay the execution as a CUDA graph where the shape stays the same.
    """

    def __init__(self, cuda: CudaApi, engine: DeviceEngine, slots: int = DEFAULT_SLOTS, graphs: bool = True) -> None:
        if slots < 1:
            raise UsageError(f"slots is {slots}", expected="1 or more; 3 keep both copy directions and the GPU busy")
        self._cuda = cuda
        self.tensors: dict[str, TensorInfo] = {tensor.name: tensor for tensor in engine.tensors}
        self._inputs = [tensor.name for tensor in engine.tensors if tensor.is_input]
        self._outputs = [tensor.name for tensor in engine.tensors if not tensor.is_input]
        self.graphs = graphs
        self._lock = threading.RLock()
        self._lost: CudaError | None = None
        self._closed = False
        self._serial = 0
        self._tickets: dict[int, Ticket] = {}
        # Counts the context's changes of shape: a graph of an earlier generation must not be replayed.
        self._generation = 0
        self._shapes: Shapes = {}
        self._all_shapes: Shapes = {}
        self._warm = False
        self._slots: list[Slot] = []
        self._streams: list[int] = []
        self._arrays_events: list[int] = []
        self._context: Any = None
        with self._cuda.current():
            try:
                self._context = engine.new_context()
                for _ in range(1 if cuda.integrated else 3):
                    self._streams.append(cuda.create_stream())
                self._slots += [Slot(cuda, dict(self.tensors)) for _ in range(slots)]
                self._arrays_events += [cuda.create_event(), cuda.create_event()]
            except BaseException:
                self._release(quietly=True)
                raise
        self._in, self._compute, self._out = self._streams * (3 if cuda.integrated else 1)

    @property
    def free_slots(self) -> int:
        """How many more frames may be submitted now."""
        return sum(not slot.busy for slot in self._slots)

    def submit(self, inputs: Buffers, *, pinned: bool = False) -> Ticket:
        """Begin one inference; returns while it goes on.

        Args:
            inputs: C-contiguous arrays by input name. They may be changed as soon as this returns, unless ``pinned``.
            pinned: they are page-locked and stay as they are until :meth:`collect`: they are copied from directly.

        Raises:
            BackendError: all slots are taken, a shape the engine does not take, out of memory, or a lost GPU.
        """
        with self._lock, self._working():
            index = next((i for i, slot in enumerate(self._slots) if not slot.busy), None)
            if index is None:
                raise BackendError(f"All {len(self._slots)} slots are taken", fix="Collect a result first")
            slot = self._slots[index]
            self._set_shapes({name: tuple(inputs[name].shape) for name in self._inputs})
            self._make_room(slot)
            slot.busy = True
            try:
                self._start(slot, inputs, pinned and not self._cuda.integrated)
            except BaseException:
                self._drain()
                slot.busy = False
                raise
            self._serial += 1
            ticket = Ticket(self, index, self._serial)
            self._tickets[index] = ticket
            return ticket

    def collect(self, ticket: Ticket, outputs: Buffers) -> None:
        """Wait for an inference and take its results.

        Args:
            outputs: C-contiguous, writable arrays by output name, each of its result's shape.

        Raises:
            BackendError: the ticket was used before, an array of another shape, or the GPU failed; the slot is free
                again in every case but the first.
        """
        with self._lock:
            if self._tickets.get(ticket.slot) != ticket:
                raise BackendError("This ticket was collected before", expected="each ticket to be collected once")
            slot = self._slots[ticket.slot]
        with self._working():
            try:
                # Without the lock: another thread may submit the next frame meanwhile. The ticket keeps the slot ours.
                self._wait_for(slot)
                for name in self._outputs:
                    self._take(slot, name, outputs[name])
            finally:
                with self._lock:
                    self._tickets.pop(ticket.slot, None)
                    slot.busy = False

    def infer(self, inputs: Buffers, outputs: Buffers) -> None:
        """Submit and collect one frame."""
        self.collect(self.submit(inputs), outputs)

    def infer_in_steps(self, inputs: Buffers, outputs: Buffers) -> tuple[float, float, float]:
        """One frame that waits for the device after each step, to tell what takes how long; slower than :meth:`infer`.

        Nothing else may be in flight. Where CPU and GPU share memory, a copy is one within that memory.

        Returns:
            Seconds of copying in, computing and copying out, each with what it takes to start it and to wait for it.

        Raises:
            BackendError: a frame is in flight, or as for :meth:`submit`.
        """
        with self._lock, self._working():
            if self._tickets:
                raise BackendError("A frame is in flight", fix="Collect it first")
            slot = self._slots[0]
            self._set_shapes({name: tuple(inputs[name].shape) for name in self._inputs})
            self._make_room(slot)
            begun = time.perf_counter()
            self._copy_in(slot, inputs, pinned=False)
            self._cuda.synchronize(self._in)
            copied = time.perf_counter()
            self._run(slot)
            self._cuda.synchronize(self._compute)
            computed = time.perf_counter()
            self._copy_out(slot)
            self._cuda.synchronize(self._out)
            for name in self._outputs:
                self._take(slot, name, outputs[name])
            return copied - begun, computed - copied, time.perf_counter() - computed

    def run_arrays(self, inputs: dict[str, DeviceArray], outputs: dict[str, DeviceArray], stream: int) -> None:
        """Run on device memory, in the order of the caller's stream, without waiting and without a copy.

        Work that the stream already has is over before the inputs are read; work that it gets later sees the outputs.
        So is work of the streams that the arrays name as their own. All arrays must live until then.

        Args:
            inputs, outputs: C-contiguous device arrays by name.
            stream: ``cudaStream_t`` as a number; 0 is the legacy default stream.

        Raises:
            BackendError: an array of another type or shape, a shape the engine does not take, or a lost GPU.
        """
        with self._lock, self._working():
            self._set_shapes({name: inputs[name].shape for name in self._inputs})
            before, after = self._arrays_events
            for name, array in {**inputs, **outputs}.items():
                tensor = self.tensors[name]
                if array.dtype != np.dtype(tensor.dtype) or array.shape != self._all_shapes[name]:
                    raise BackendError(
                        f"The device array for '{name}' is {array.dtype} {array.shape}",
                        expected=f"{tensor.dtype} {self._all_shapes[name]}",
                    )
                self._context.set_address(name, array.address)
                if array.stream is not None:
                    wait_for(self._cuda, array.stream, stream, before)
            self._cuda.record(before, stream)
            self._cuda.wait(self._compute, before)
            self._context.enqueue(self._compute)
            self._warm = True
            self._cuda.record(after, self._compute)
            self._cuda.wait(stream, after)

    def output_shapes(self, inputs: Shapes) -> Shapes:
        """Shapes of the results for inputs of those shapes.

        Raises:
            BackendError: a shape that the engine does not take.
        """
        with self._lock, self._working():
            self._set_shapes(inputs)
            return {name: self._all_shapes[name] for name in self._outputs}

    def close(self) -> None:
        """Wait for what is under way and give everything back; closing twice does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with self._cuda.current():
                self._release(quietly=self._lost is not None)

    def _set_shapes(self, shapes: Shapes) -> None:
        if shapes == self._shapes:
            return
        self._drain()  # the context must not change under work that uses it
        self._shapes = {}
        for name, shape in shapes.items():
            self._context.set_shape(name, shape)
        self._all_shapes = {**shapes, **{name: self._context.output_shape(name) for name in self._outputs}}
        self._shapes = dict(shapes)
        self._generation += 1
        self._warm = False

    def _make_room(self, slot: Slot) -> None:
        try:
            slot.resize(self._all_shapes)
        except CudaError as error:
            if not error.out_of_memory:
                raise
            sizes = (np.prod(self._all_shapes[n]) * np.dtype(t.dtype).itemsize for n, t in self.tensors.items())
            free, total = self._cuda.free_memory()
            raise BackendError(
                f"The GPU has not enough memory: a frame in flight needs {int(sum(sizes)) >> 20} MiB, and "
                f"{free >> 20} of {total >> 20} MiB are free",
                fix=error.fix,
            ) from error

    def _start(self, slot: Slot, inputs: Buffers, pinned: bool) -> None:
        cuda = self._cuda
        self._copy_in(slot, inputs, pinned)
        if not cuda.integrated:
            cuda.record(slot.copied, self._in)
            cuda.wait(self._compute, slot.copied)
        self._run(slot)
        if not cuda.integrated:
            cuda.record(slot.computed, self._compute)
            cuda.wait(self._out, slot.computed)
        self._copy_out(slot)
        cuda.record(slot.returned, self._out)

    def _copy_in(self, slot: Slot, inputs: Buffers, pinned: bool) -> None:
        for name in self._inputs:
            if not pinned:
                np.copyto(slot.array(name), inputs[name], casting="no")
            if not self._cuda.integrated:
                source = inputs[name].reshape(-1).view(np.uint8) if pinned else slot.staging[name].host
                self._cuda.copy_in(slot.staging[name].address, source, self._in)

    def _copy_out(self, slot: Slot) -> None:
        if not self._cuda.integrated:
            for name in self._outputs:
                self._cuda.copy_out(slot.staging[name].host, slot.staging[name].address, self._out)

    def _run(self, slot: Slot) -> None:
        if slot.graph is not None and slot.generation == self._generation:
            self._cuda.launch_graph(slot.graph, self._compute)
            return
        slot.drop_graph()
        for name in self.tensors:
            self._context.set_address(name, slot.staging[name].address)
        # The first execution after a change of shape does work that no graph may hold.
        if not self.graphs or not self._warm or not self._context.capturable(self._compute):
            self._context.enqueue(self._compute)
            self._warm = True
            return
        self._cuda.begin_capture(self._compute)
        try:
            self._context.enqueue(self._compute)
        finally:
            slot.graph = self._cuda.end_capture(self._compute)
        slot.generation = self._generation
        self._cuda.launch_graph(slot.graph, self._compute)

    def _wait_for(self, slot: Slot) -> None:
        try:
            self._cuda.synchronize_event(slot.returned)
        except CudaError:
            with suppress(CudaError):  # the slot is given out again: nothing may still use it
                self._drain()
            raise

    def _take(self, slot: Slot, name: str, target: Any) -> None:
        result = slot.array(name)
        if result.shape != target.shape or result.dtype != target.dtype:
            raise BackendError(
                f"The array for '{name}' is {target.dtype} {target.shape}",
                expected=f"{result.dtype} {result.shape}, which the engine gives",
            )
        np.copyto(target, result)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """The context is current, a lost GPU is remembered, and a closed runner refuses."""
        if self._closed:
            raise BackendError("The runner is closed", fix="Open the model again")
        if self._lost is not None:
            raise BackendError(f"The GPU was lost earlier: {self._lost.found}", fix=self._lost.fix)
        with self._cuda.current():
            try:
                yield
            except CudaError as error:
                if error.lost:
                    self._lost = error
                raise

    def _drain(self) -> None:
        for stream in self._streams:
            self._cuda.synchronize(stream)

    def _release(self, quietly: bool) -> None:
        """Give back in the order in which things need each other; an error does not keep the rest from going."""
        problems: list[Exception] = []

        def attempt(step: Callable[[], None]) -> None:
            try:
                step()
            except Exception as error:
                problems.append(error)

        attempt(self._drain)
        for slot in self._slots:
            attempt(slot.release)
        if self._context is not None:
            attempt(self._context.close)
        for event in self._arrays_events:
            attempt(lambda event=event: self._cuda.destroy_event(event))  # type: ignore[misc]
        for stream in self._streams:
            attempt(lambda stream=stream: self._cuda.destroy_stream(stream))  # type: ignore[misc]
        if problems and not quietly:
            raise problems[0]
