"""What every inference backend offers, and the registry in which they are found by name.

A backend runs the graph of one model file. It knows nothing of frames, colours or videos: it is given named NumPy
buffers in the layout of the card's ports and fills the named output buffers. Heavy packages are imported when a backend
is opened, so that asking which ones exist costs nothing and never fails.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from derain.card import ModelCard, Port
from derain.errors import BackendError, MissingDependencyError, ModelFileError, UsageError

Buffers: TypeAlias = dict[str, NDArray[Any]]
BackendT = TypeVar("BackendT", bound="type[Backend]")


class Backend(ABC):
    """One model file opened for inference on one device. One thread at a time may call :meth:`infer`, or one a lane.

    Subclasses implement the ``*_impl`` methods; the checks that all share are here.

    Args:
        path: the model file.
        card: its card; the ports tell names, types and layouts.
        threads: CPU threads of all lanes, None for :func:`derain.runtime.backends.threads.default_threads`.
        lanes: inferences that run at once, each on its share of the threads. One lane has each frame done soonest; with
            several, no thread waits for another within a frame, and more frames are done in a second.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    """The Python package it needs."""
    extra: ClassVar[str]
    """The extra of derain that installs the package."""
    most_lanes: ClassVar[int] = 1
    """How many lanes it can be opened with."""
    context_per_thread: ClassVar[bool] = False
    """Whether :meth:`infer` may be called by several threads at once, which then go side by side."""

    def __init__(self, path: Path, card: ModelCard, threads: int | None = None, lanes: int = 1) -> None:
        from derain.runtime.backends.threads import default_threads

        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}", expected="1 or more, or nothing for the machine's cores")
        self.path = path
        self.card = card
        self.threads = threads or default_threads()
        if not 1 <= lanes <= min(self.most_lanes, self.threads):
            raise UsageError(
                f"The backend '{self.name}' was asked for {lanes} lanes on {self.threads} threads",
                expected=f"1 to {min(self.most_lanes, self.threads)}",
            )
        self.lanes = lanes
        self._open = False

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this machine cannot use the backend; None when it can."""
        try:
            cls.import_package()
        except MissingDependencyError as error:
            return str(error)
        except BackendError as error:
            return str(error)
        return None

    @classmethod
    def import_package(cls) -> ModuleType:
        """The package behind the backend.

        Raises:
            MissingDependencyError: it is not installed.
            BackendError: it is installed, but does not import.
        """
        try:
            return importlib.import_module(cls.package)
        except ModuleNotFoundError as error:
            if error.name != cls.package:
                raise BackendError(f"The package '{cls.package}' does not import ({error})") from error
            raise MissingDependencyError(
                cls.package, needed_for=f"The backend '{cls.name}'", extra=cls.extra
            ) from error
        except (ImportError, OSError) as error:
            raise BackendError(
                f"The package '{cls.package}' is installed but does not import ({error})",
                fix=f"Install it again: pip install --force-reinstall {cls.package}",
            ) from error

    @property
    @abstractmethod
    def device(self) -> str:
        """The engine, its version and the device, for people to read."""

    def open(self) -> None:
        """Load the model and prepare it.

        Raises:
            BackendError: the engine refuses the model.
            ModelFileError: the graph's inputs or outputs are not those its card declares.
        """
        if self._open:
            raise BackendError(f"The backend '{self.name}' is already open")
        self._open_impl()
        self._open = True

    def close(self) -> None:
        """Give back everything that :meth:`open` took; closing twice does nothing."""
        if self._open:
            self._open = False
            self._close_impl()

    def infer(self, inputs: Buffers, outputs: Buffers) -> None:
        """Run the graph once, synchronously, from ``inputs`` into ``outputs``.

        Args:
            inputs: one C-contiguous array for each input port; only read.
            outputs: one C-contiguous, writable array for each output port, of the shape the result will have.

        Raises:
            BackendError: not open, or the engine failed (the message says how).
        """
        if not self._open:
            raise BackendError(f"The backend '{self.name}' is closed", fix="Open it again, or load the model again")
        self._infer_impl(inputs, outputs)

    @abstractmethod
    def _open_impl(self) -> None:
        """See :meth:`open`."""

    @abstractmethod
    def _close_impl(self) -> None:
        """See :meth:`close`."""

    @abstractmethod
    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        """See :meth:`infer`."""

    def refused(self, what: str, error: Exception) -> BackendError:
        """A :class:`BackendError` around an engine's exception; engines put whole stacks into their messages."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return BackendError(f"{self.device} {what} '{self.path}': {' '.join(lines[-2:])[:400]}")

    def require_ports(self, inputs: dict[str, str], outputs: dict[str, str]) -> None:
        """Compare a graph's ports (name -> NumPy dtype name) with the card's: a wrong card must not misread memory.

        Raises:
            ModelFileError: a name or a type differs.
        """
        for kind, found, declared in (("inputs", inputs, self.card.inputs), ("outputs", outputs, self.card.outputs)):
            expected = {port.name: port.dtype for port in declared}
            if found != expected:
                raise ModelFileError(
                    f"The graph in '{self.path}' has the {kind} {found}",
                    expected=f"those its card declares, {expected}",
                    fix="Export the model again with: derain export",
                )

    def __enter__(self) -> Backend:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_registered: dict[str, type[Backend]] = {}


def register(backend: BackendT) -> BackendT:
    """Class decorator: make a backend known under its ``name``.

    Raises:
        ValueError: another class has that name already.
    """
    known = _registered.setdefault(backend.name, backend)
    if known is not backend:
        raise ValueError(f"backend name '{backend.name}' is taken by {known.__qualname__}")
    return backend


def registered() -> dict[str, type[Backend]]:
    """Name -> class of every backend, those this machine cannot use included."""
    return dict(_registered)


def find(name: str) -> type[Backend]:
    """The backend of that name.

    Raises:
        UsageError: no backend is called that.
    """
    try:
        return _registered[name]
    except KeyError:
        raise UsageError(
            f"There is no backend '{name}'", expected=f"one of: auto, {', '.join(sorted(_registered))}"
        ) from None


def shape_of(port: Port, batch: int, height: int, width: int) -> tuple[int, ...]:
    """Shape of a port's array for pictures of that size."""
    if port.layout == "NHW":
        return (batch, height, width)
    return (batch, height, width, 3) if port.layout == "NHWC" else (batch, 3, height, width)


def dtype_of(port: Port) -> np.dtype[Any]:
    """NumPy dtype of a port."""
    return np.dtype(port.dtype)
