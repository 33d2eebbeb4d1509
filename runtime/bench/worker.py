"""A candidate in a process of its own, so that its memory and start-up are its own and a crash is told, not shared."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from derain.errors import BackendError, DerainError
from derain.runtime.bench.subject import Opened, Spec, Steps, Subject, Timing, Usage
from derain.runtime.bench.sweeps import BatchTime, StreamsTime, VideoTime

_FAREWELL_SECONDS = 10.0


class Remote:
    """The same calls as :class:`Subject`, answered by a child process; times are taken there.

    Every call raises BackendError with the message of what the child raised, or saying that it ended.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        # Not a fork: the parent's threads and libraries would be half copied into it, and its memory counted.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def process_id(self) -> int | None:
        """Of the child."""
        return self._process.pid

    def open(self) -> Opened:
        answer: Opened = self._ask("open")
        return answer

    def run(self) -> Timing:
        answer: Timing = self._ask("run")
        return answer

    def run_steps(self) -> Steps | None:
        answer: Steps | None = self._ask("run_steps")
        return answer

    def run_for(self, seconds: float) -> tuple[int, float]:
        answer: tuple[int, float] = self._ask("run_for", seconds)
        return answer

    def run_batch(self, size: int) -> BatchTime:
        answer: BatchTime = self._ask("run_batch", size)
        return answer

    def run_streams(self, streams: int, frames: int, seconds: float | None) -> StreamsTime:
        answer: StreamsTime = self._ask("run_streams", streams, frames, seconds)
        return answer

    def run_video(self, path: Path) -> VideoTime:
        answer: VideoTime = self._ask("run_video", path)
        return answer

    def usage(self) -> Usage:
        answer: Usage = self._ask("usage")
        return answer

    def close(self) -> None:
        """End the process; it is killed where it does not leave."""
        self._connection.close()
        self._process.join(_FAREWELL_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            self._connection.send((method, arguments))
            problem, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(_FAREWELL_SECONDS)
            raise BackendError(
                f"The process that ran '{self.spec.name}' with {self.spec.backend} ended ({self._ending()})",
                fix="Try a smaller --size, or look for 'Out of memory' in the output of dmesg",
            ) from error
        if problem is not None:
            raise BackendError(problem)
        return answer

    def _ending(self) -> str:
        code = self._process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, spec: Spec) -> None:
    """The child: answer until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    with Subject(spec) as subject:
        while True:
            try:
                method, arguments = connection.recv()
            except (EOFError, OSError):
                return
            problem, answer = None, None
            try:
                answer = getattr(subject, method)(*arguments)
            except DerainError as error:
                problem = str(error)
            except MemoryError:
                problem = f"There is not enough memory for '{spec.name}' at {spec.width} x {spec.height}"
            try:
                connection.send((problem, answer))
            except OSError:  # the parent hung up meanwhile: it was interrupted
                return
