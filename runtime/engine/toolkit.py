"""The TensorRT of this machine: the full one of JetPack and the NVIDIA packages, or TensorRT-RTX from pip.

Both have the same Python API. TensorRT-RTX builds engines without a GPU, for compute capabilities that it is told; the
full TensorRT times kernels on the GPU that the engine is for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from derain.errors import BackendError, DerainError, MissingDependencyError, UsageError
from derain.runtime.engine.driver import Driver, probe_driver

ToolkitName = Literal["tensorrt", "tensorrt-rtx"]
OLDEST = (10, 3)
_MODULES: dict[ToolkitName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_INSTALL: dict[ToolkitName, str] = {
    "tensorrt": "On a Jetson it comes with JetPack: make the environment with python3 -m venv --system-site-packages; "
    'on x86-64 run: pip install "derain[tensorrt]"',
    "tensorrt-rtx": "Run: pip install tensorrt-rtx-cu13",
}


@dataclass(frozen=True)
class Toolkit:
    """An imported TensorRT. ``module`` has the API of ``tensorrt`` 10.3 or newer."""

    name: ToolkitName
    module: Any
    version: str

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds without a GPU, for compute capabilities it is told."""
        return self.name == "tensorrt-rtx"

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.ahead_of_time else 'TensorRT'} {self.version}"


def import_toolkit(name: ToolkitName) -> Toolkit:
    """Import one of the two. Creates nothing in it: some versions crash without a driver.

    Raises:
        MissingDependencyError: it is not installed for this Python.
        BackendError: it is installed but does not import, or is older than 10.3.
    """
    package = _MODULES[name]
    try:
        module: Any = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise BackendError(f"The package '{package}' does not import ({error})", fix=_INSTALL[name]) from error
        raise MissingToolkitError(name) from error
    except (ImportError, OSError) as error:
        raise BackendError(
            f"The package '{package}' is installed but does not import ({error})", fix=_INSTALL[name]
        ) from error
    version = str(getattr(module, "__version__", "0"))
    if name == "tensorrt" and version_numbers(version) < OLDEST:
        raise BackendError(
            f"TensorRT {version} is installed",
            expected="10.3 or newer (JetPack 6.1 or newer)",
            fix="Update JetPack or TensorRT",
        )
    return Toolkit(name, module, version)


def choose_toolkit(wanted: str, driver: Driver | None = None) -> Toolkit:
    """The TensorRT to build with.

    Args:
        wanted: ``tensorrt``, ``tensorrt-rtx``, or ``auto``: TensorRT where it and a GPU are, else TensorRT-RTX.
        driver: what :func:`probe_driver` found, if it was asked before.

    Raises:
        UsageError: another name.
        MissingDependencyError, BackendError: the one asked for, or both, cannot be used here.
    """
    if wanted not in ("auto", *_MODULES):
        raise UsageError(f"There is no builder '{wanted}'", expected="auto, tensorrt or tensorrt-rtx")
    driver = driver or probe_driver()
    reasons = []
    order: tuple[ToolkitName, ...] = ("tensorrt", "tensorrt-rtx")
    for name in order:
        if wanted not in ("auto", name):
            continue
        try:
            if name == "tensorrt" and not driver.usable:
                raise BackendError(f"TensorRT builds engines on the GPU they are for, and {driver.problem}")
            return import_toolkit(name)
        except (BackendError, MissingDependencyError) as error:
            if wanted != "auto":
                raise
            reasons.append(str(error))
    raise BackendError(
        f"No TensorRT can build engines here. {' '.join(reasons)}",
        fix="See what is missing with derain doctor, or write a script for the device with derain build --script",
    )


def version_numbers(version: str) -> tuple[int, ...]:
    """``"10.13.3.9"`` as (10, 13, 3, 9); stops at the first part that is not a number."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


class MissingToolkitError(MissingDependencyError):
    """TensorRT is not installed for this Python; on a Jetson the remedy is not pip."""

    def __init__(self, name: ToolkitName) -> None:
        found = f"The backend '{name}' needs the package '{_MODULES[name]}', which this Python does not see"
        DerainError.__init__(self, found, fix=_INSTALL[name])
        self.package = _MODULES[name]
