"""The NVIDIA driver and GPUs of this machine, asked from the driver itself.

The CUDA runtime's error 35 means "no driver" and "driver older than this runtime" alike, and parts of TensorRT crash
without a driver. So libcuda, which comes with the driver, is asked first, through ctypes: nothing else is needed.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "no_driver", "no_device", "broken"]
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
# CUresult and CUdevice_attribute of cuda.h.
_NO_DEVICE = 100
_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _INTEGRATED = 75, 76, 18


@dataclass(frozen=True)
class Gpu:
    """One GPU. ``memory_bytes`` is its whole memory; on an integrated one (Jetson) that is the system's."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    integrated: bool

    @property
    def sm(self) -> str:
        """The compute capability as TensorRT-RTX and the compilers write it: ``SM87``."""
        return f"SM{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True)
class Driver:
    """What the driver says.

    Attributes:
        cuda: the newest CUDA that the driver supports, such as (12, 6); None without a driver.
        detail: the driver's own words where something is wrong; empty where there is simply none.
        version: of the driver itself, such as ``540.4.0``; None where the system does not tell.
    """

    state: State
    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()
    detail: str = ""
    version: str | None = None

    @property
    def usable(self) -> bool:
        """Whether there is a GPU that works."""
        return self.state == "ok"

    @property
    def problem(self) -> str:
        """What is wrong, as the rest of a sentence; empty when all is well."""
        return {
            "ok": "",
            "no_driver": "there is no NVIDIA driver here" + (f" ({self.detail})" if self.detail else ""),
            "no_device": "the NVIDIA driver finds no GPU",
            "broken": f"the NVIDIA driver does not work ({self.detail})",
        }[self.state]

    def too_old_for(self, runtime: tuple[int, int]) -> str | None:
        """Why a CUDA runtime of that version cannot work with this driver; None when it can, or there is no driver.

        Within one major version newer runtimes work with older drivers (minor version compatibility).
        """
        if self.cuda is None or self.cuda[0] >= runtime[0]:
            return None
        return (
            f"the driver supports CUDA {self.cuda[0]}.{self.cuda[1]}, older than the CUDA {runtime[0]}.{runtime[1]} "
            "runtime that is installed"
        )


@cache
def probe_driver() -> Driver:
    """Ask the driver once; the answer is kept. Never raises."""
    try:
        text = _KERNEL_MODULE.read_text(errors="replace")
    except OSError:
        text = ""
    return replace(ask_driver(ctypes.CDLL), version=kernel_module_version(text))


def kernel_module_version(text: str) -> str | None:
    """The driver's version in the text of its kernel module; CUDA only tells which CUDA the driver supports."""
    match = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s", text)
    return match[1] if match else None


def ask_driver(load: Callable[[str], Any]) -> Driver:
    """Ask the driver through a loader of shared libraries. Never raises.

    Args:
        load: gives the library of a name, or raises OSError, as ``ctypes.CDLL`` does.
    """
    try:
        library = load(_LIBRARY)
    except OSError as error:
        absent = "No such file" in str(error) or "could not be found" in str(error).lower()
        return Driver("no_driver", detail="" if absent else str(error))
    try:
        code = library.cuInit(0)
        version = ctypes.c_int()
        cuda = None
        if library.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value:
            cuda = (version.value // 1000, version.value % 1000 // 10)
        if code:
            state: State = "no_device" if code == _NO_DEVICE else "broken"
            return Driver(state, cuda, detail=f"cuInit: {_error_text(library, code)}")
        count = ctypes.c_int()
        code = library.cuDeviceGetCount(ctypes.byref(count))
        if code:
            return Driver("broken", cuda, detail=f"cuDeviceGetCount: {_error_text(library, code)}")
        gpus = tuple(_gpu(library, index) for index in range(count.value))
    except (AttributeError, OSError, ValueError) as error:
        return Driver("broken", detail=str(error))
    return Driver("ok" if gpus else "no_device", cuda, gpus)


def _gpu(library: Any, index: int) -> Gpu:
    device = ctypes.c_int()
    _check(library, library.cuDeviceGet(ctypes.byref(device), index))
    name = ctypes.create_string_buffer(256)
    _check(library, library.cuDeviceGetName(name, len(name), device))
    memory = ctypes.c_size_t()
    _check(library, library.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    major, minor, integrated = (
        _attribute(library, number, device) for number in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _INTEGRATED)
    )
    return Gpu(name.value.decode(errors="replace"), (major, minor), memory.value, bool(integrated))


def _attribute(library: Any, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _check(library, library.cuDeviceGetAttribute(ctypes.byref(value), number, device))
    return value.value


def _check(library: Any, code: int) -> None:
    if code:
        raise OSError(_error_text(library, code))


def _error_text(library: Any, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return f"error {code}" + (f", {text.value.decode(errors='replace')}" if text.value else "")
