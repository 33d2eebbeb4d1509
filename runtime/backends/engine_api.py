"""What the runner needs of a deserialised engine, as an interface; TensorRT's is in :mod:`tensorrt_engine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from derain.errors import BackendError


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of an engine. ``dtype`` is NumPy's name; -1 in ``shape`` is a side that varies."""

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]
    largest: tuple[int, ...] | None
    """Largest shape of the profile, for inputs."""
    smallest: tuple[int, ...] | None


class DeviceContext(Protocol):
    """The state of one execution. Its work must be in one stream at a time: it has one scratch memory."""

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Shape of an input from now on. Raises BackendError when the profile does not allow it."""

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Shape of an output for the inputs' shapes."""

    def set_address(self, name: str, address: int) -> None:
        """Device memory of an input or output from now on."""

    def capturable(self, stream: int) -> bool:
        """Whether an execution can be captured into a CUDA graph. Not asked while the stream is captured."""

    def enqueue(self, stream: int) -> None:
        """Run in stream order. Raises BackendError when TensorRT refuses."""

    def close(self) -> None:
        """Give its memory back."""


class DeviceEngine(Protocol):
    """A deserialised engine."""

    @property
    def tensors(self) -> list[TensorInfo]:
        """All inputs and outputs."""

    def new_context(self) -> DeviceContext:
        """A new execution context."""

    def close(self) -> None:
        """Give its memory back; contexts must be closed before."""


class PlanError(BackendError):
    """TensorRT refuses a plan whose checksum is right: it must be built again."""
