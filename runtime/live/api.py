"""The pipeline for applications: name the streams, and take results from a loop, synchronous or ``async``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from derain.companions import beside
from derain.errors import MediaError
from derain.models import resolve
from derain.runtime.gate import GateMode
from derain.runtime.live.addresses import parse_address
from derain.runtime.live.clock import SystemClock
from derain.runtime.live.job import LiveOptions, stream_specs
from derain.runtime.live.run import LiveRun
from derain.runtime.live.stream import Policy, StreamReport, StreamSpec
from derain.runtime.model import load
from derain.runtime.parts import PartModel
from derain.runtime.pipeline import Derained
from derain.runtime.ports import Picture, RainMap

_TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Result:
    """One derained frame.

    Attributes:
        stream: its stream's name.
        index: its number in the stream; gaps are frames that were dropped.
        before, clean: uint8 (H, W, 3) BGR; the same array where ``gated``.
        rain: the map, float32 (H, W) in [0, 1], where it was asked for and measured.
        intensity: of the rain, 0 to 1; None with the gate off.
        gated: it does not rain, and the frame passed untouched.
        seconds: a file's own time, else that of arrival (monotonic clock).
    """

    stream: str
    index: int
    before: Picture
    clean: Picture
    rain: RainMap | None
    intensity: float | None
    gated: bool
    seconds: float


class Pipeline:
    """Streams through one model.

    ::

        with Pipeline("edge", {"front": "rtsp://camera/stream", "rear": "v4l2:///dev/video0"}) as pipeline:
            for result in pipeline:
                show(result.stream, result.clean)

    The same with ``async with`` and ``async for``. Whoever takes results slowly gets the newest ones: as long as one of
    a stream is not taken, the next waits, and the frames behind it are dropped and counted (live sources) or wait
    (files). Leaving the block ends every stream.

    Args:
        model: a shipped name or a file.
        sources: name -> source, as ``derain run`` takes them; or one source, which is then called ``stream``.
        gate: ``auto`` passes dry frames untouched; see :mod:`derain.runtime.gate`.
        rain_maps: give the rain map with each result.
        policy: None for ``drop-oldest`` with live sources and ``block`` with files.
        backend, threads: as for :func:`derain.load`.

    A stream that fails ends alone, and :meth:`reports` tells why.

    Raises:
        UsageError: a source that makes no sense; and what :func:`derain.load` raises, on entering.
        MediaError: at the end of the loop: no stream gave a single frame.
    """

    def __init__(
        self,
        model: str | Path,
        sources: str | Mapping[str, str],
        *,
        gate: GateMode = "off",
        rain_maps: bool = False,
        policy: Policy | None = None,
        backend: str = "auto",
        threads: int | None = None,
    ) -> None:
        named = {"stream": sources} if isinstance(sources, str) else sources
        self._addresses = [parse_address(f"{name}={source}") for name, source in named.items()]
        self._model, self._backend, self._threads = model, backend, threads
        self._options = LiveOptions(gate=gate, keep_map=rain_maps, policy=policy)
        self._changed = SystemClock().condition()
        self._results: deque[Result] = deque()
        self._closed = False

    def __enter__(self) -> Pipeline:
        with ExitStack() as stack:
            model = stack.enter_context(load(self._model, self._backend, self._threads))
            part = beside(resolve(self._model), "attention")
            look = None
            if self._options.gate == "auto" and part.exists():
                look = PartModel(part, "attention", self._backend, self._threads)
                stack.callback(look.close)
            specs = stream_specs(self._addresses, model, self._options, look)
            self._run = LiveRun([self._delivering(spec) for spec in specs])
            self._stack = stack.pop_all()
        self._run.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._results.clear()
            self._changed.notify_all()
        self._run.stop()
        self._run.wait()
        self._stack.close()

    def __iter__(self) -> Iterator[Result]:
        while (result := self._take()) is not None:
            yield result

    async def __aenter__(self) -> Pipeline:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    async def __aiter__(self) -> AsyncIterator[Result]:
        while (result := await asyncio.to_thread(self._take)) is not None:
            yield result

    def reports(self) -> list[StreamReport]:
        """State, ages, drops and rain of every stream."""
        return self._run.reports()

    def _take(self) -> Result | None:
        """The next result, in the order they were finished; None when every stream has ended."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._results) or self._closed, _TICK_SECONDS)
                if self._results:
                    result = self._results.popleft()
                    self._changed.notify_all()
                    return result
                if self._closed:
                    return None
            if self._run.wait(0):
                with self._changed:
                    if not self._results:
                        break
        reports = self._run.reports()
        if all(report.state == "failed" and not report.delivered for report in reports):
            raise MediaError("; ".join(f"{report.name}: {report.reason}" for report in reports))
        return None

    def _delivering(self, spec: StreamSpec) -> StreamSpec:
        """The stream with a delivery that hands over here, and waits until its result before was taken."""

        def deliver(derained: Derained, seconds: float) -> None:
            frame = derained.frame
            result = Result(
                spec.name,
                frame.index,
                frame.pixels,
                derained.clean,
                derained.rain,
                derained.intensity,
                derained.gated,
                seconds,
            )
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or all(waiting.stream != spec.name for waiting in self._results)
                )
                if not self._closed:
                    self._results.append(result)
                    self._changed.notify_all()

        return StreamSpec(spec.name, spec.open, spec.infer, deliver, policy=spec.policy, reconnect=spec.reconnect)
