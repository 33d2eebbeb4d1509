"""Calibration for TensorRT's implicit INT8 mode, 8.x and 10.x: a cache file, and a calibrator object.

TensorRT 11 has neither. Where explicit Q/DQ works (10.3 and newer) it is the better choice: the cache is for DLA and
for build scripts that take ``trtexec --int8 --calib``. TensorRT applies it to the float32 model and decides by itself
which layers compute in INT8; the quality gate of ``derain calibrate`` says nothing about that engine.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.calibration.ranges import Ranges
from derain.errors import BackendError, CalibrationError, MissingDependencyError, ModelFileError, UsageError
from derain.files import atomic_path, check_size

_ALGORITHM = "EntropyCalibration2"
_HEADER = re.compile(rf"TRT-(\d+)-{_ALGORITHM}")
_MAX_BYTES = 16 << 20


def cache_text(ranges: Ranges, version: str) -> str:
    """The cache as TensorRT writes it: a header, then tensors with their scales as big-endian floats in hexadecimal.

    Args:
        ranges: the scale is the largest magnitude over 127.
        version: see :func:`cache_header`.
    """
    lines = [cache_header(version)]
    lines += [f"{name}: {struct.pack('>f', ranges.scale(name)).hex()}" for name in ranges.largest]
    return "\n".join(lines) + "\n"


def cache_header(version: str) -> str:
    """The first line.

    Args:
        version: of the TensorRT that will read it, such as ``10.3.0``; it skips the cache of another version.

    Raises:
        UsageError: not a version that reads such a cache.
    """
    numbers = [int(part) for part in re.findall(r"\d+", version)[:3]]
    if len(numbers) < 2 or numbers[0] not in (8, 10):
        raise UsageError(
            f"TensorRT version '{version}' has no calibration cache",
            expected="8.x or 10.x, such as 10.3.0",
            fix="Build the INT8 file itself: its Q/DQ pairs are all that newer versions need",
        )
    major, minor, patch = (*numbers, 0)[:3]
    # NV_TENSORRT_VERSION of NvInferVersion.h: one digit for the minor version up to 8, two from 10 on.
    number = major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch
    return f"TRT-{number}-{_ALGORITHM}"


def write_cache(path: Path, ranges: Ranges, version: str) -> None:
    """Write :func:`cache_text` to a file."""
    text = cache_text(ranges, version)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="ascii")


def read_cache(path: Path) -> dict[str, float]:
    """Tensor to scale, of a cache that TensorRT or we wrote.

    Raises:
        ModelFileError: not such a file.
    """
    check_size(path, _MAX_BYTES, ModelFileError)
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    if not lines or not _HEADER.fullmatch(lines[0]):
        raise ModelFileError(f"'{path}' is not a calibration cache", expected=f"a first line TRT-...-{_ALGORITHM}")
    scales = {}
    for line in lines[1:]:
        name, _, number = line.rpartition(": ")
        if not name or not re.fullmatch(r"[0-9a-f]{8}", number):
            raise ModelFileError(f"'{path}' has the line '{line[:80]}'", expected="NAME: 8 hexadecimal digits")
        scales[name] = float(struct.unpack(">f", bytes.fromhex(number))[0])
    return scales


def entropy_calibrator(trt: Any, feeds: Iterable[dict[str, NDArray[Any]]], cache: Path) -> Any:
    """An ``IInt8EntropyCalibrator2`` that gives TensorRT our frames, one at a time, and keeps its cache in a file.

    Args:
        trt: the module ``tensorrt``, 8.x or 10.x.
        feeds: inputs of the graph for each frame, all of one shape.
        cache: read if it exists, else written.

    Raises:
        BackendError: this TensorRT has no calibrators.
        MissingDependencyError: cuda-python is not installed.
    """
    base: Any = getattr(trt, "IInt8EntropyCalibrator2", None)
    if base is None:
        raise BackendError(
            f"TensorRT {getattr(trt, '__version__', '')} has no INT8 calibrators",
            expected="8.x or 10.x",
            fix="Build the INT8 file of derain calibrate: it needs none",
        )
    copy = _DeviceCopy()

    class Calibrator(base):  # type: ignore[misc]
        """Batches of one frame: with explicit batches TensorRT takes the batch from the profile."""

        def __init__(self) -> None:
            base.__init__(self)
            self._feeds = iter(feeds)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            feed = next(self._feeds, None)
            return None if feed is None else [copy(name, feed[name]) for name in names]

        def read_calibration_cache(self) -> bytes | None:
            return cache.read_bytes() if cache.is_file() else None

        def write_calibration_cache(self, data: Any) -> None:
            with atomic_path(cache) as temporary:
                temporary.write_bytes(bytes(data))

    return Calibrator()


class _DeviceCopy:
    """Puts arrays on the GPU; the memory of an input is used again for the next frame."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise MissingDependencyError("cuda-python", needed_for="TensorRT's calibrator", extra="tensorrt") from error
        self._cuda = runtime
        self._held: dict[str, tuple[int, int]] = {}

    def __call__(self, name: str, array: NDArray[Any]) -> int:
        array = np.ascontiguousarray(array)
        address, size = self._held.get(name, (0, 0))
        if size < array.nbytes:
            if address:
                self._check(self._cuda.cudaFree(address))
            address = int(self._check(self._cuda.cudaMalloc(array.nbytes)))
            self._held[name] = address, array.nbytes
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._check(self._cuda.cudaMemcpy(address, array.ctypes.data, array.nbytes, kind))
        return address

    @staticmethod
    def _check(result: Any) -> Any:
        code, *values = result
        if int(code):
            raise CalibrationError(f"CUDA failed while calibrating ({code})")
        return values[0] if values else None
