"""A thin, honest use of the C API from Python, and the colour formulas in NumPy for comparison."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from derain.runtime.backends import native_library as native

FORMATS = {"bgr": native.BGR, "rgb": native.RGB, "bgra": native.BGRA, "nv12": native.NV12, "i420": native.I420}
BITS = 13  # of fractions in fixed point
_LUMA = [(0.299, 0.114), (0.2126, 0.0722)]


class Image:
    """A frame with memory of its own: planes with ``gap`` bytes of padding after each row."""

    def __init__(self, library: ctypes.CDLL, name: str, width: int, height: int, colour: int = 0, gap: int = 0) -> None:
        half = ((height + 1) // 2, (width + 1) // 2)
        shapes = {
            "bgr": [(height, width, 3)],
            "rgb": [(height, width, 3)],
            "bgra": [(height, width, 4)],
            "nv12": [(height, width), (*half, 2)],
            "i420": [(height, width), half, half],
        }[name]
        self.memory: list[NDArray[np.uint8]] = []
        self.planes: list[NDArray[np.uint8]] = []
        self.struct = native.new_frame(library, FORMATS[name], width, height)
        self.struct.colour = colour
        for index, shape in enumerate(shapes):
            row = int(np.prod(shape[1:]))
            memory = np.full((shape[0], row + gap), 0xA5, np.uint8)
            self.memory.append(memory)
            self.planes.append(memory[:, :row].reshape(shape) if gap == 0 else _rows(memory, shape))
            self.struct.plane[index] = memory.ctypes.data
            self.struct.stride[index] = memory.strides[0]

    def fill(self, planes: list[NDArray[np.uint8]]) -> Self:
        for mine, theirs in zip(self.planes, planes, strict=True):
            mine[...] = theirs
        return self


def _rows(memory: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A view of padded rows with the pixels' own axes."""
    pixel = shape[2] if len(shape) == 3 else 1
    strides = (memory.strides[0], pixel, 1)[: len(shape)]
    return np.lib.stride_tricks.as_strided(memory, shape, strides)


class Client:
    """An open model of the C API."""

    def __init__(self, library: ctypes.CDLL, path: Path, **options: Any) -> None:
        self.library = library
        self.handle = c_void_p()
        struct = native.Options()
        library.derain_options_default(byref(struct))
        for name, value in options.items():
            setattr(struct, name, value)
        native.check(library, library.derain_open(str(path).encode(), byref(struct), byref(self.handle)))

    def request(self, rainy: Image, clean: Image, rain: NDArray[np.float32] | None = None, **fields: Any) -> Any:
        request = native.Request()
        self.library.derain_request_default(byref(request))
        request.rainy, request.clean = ctypes.pointer(rainy.struct), ctypes.pointer(clean.struct)
        if rain is not None:
            request.rain, request.rain_stride = rain.ctypes.data, rain.strides[0]
        for name, value in fields.items():
            setattr(request, name, value)
        return request

    def run(self, rainy: Image, clean: Image, rain: NDArray[np.float32] | None = None, **fields: Any) -> None:
        request = self.request(rainy, clean, rain, **fields)
        native.check(self.library, self.library.derain_run_request(self.handle, byref(request)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.library.derain_close(self.handle)


def _fixed(value: float) -> int:
    return int(np.floor(abs(value) * 2**BITS + 0.5)) * (1 if value >= 0 else -1)


def _levels(fixed_point: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.clip(fixed_point + 2 ** (BITS - 1) >> BITS, 0, 255).astype(np.uint8)


def _scales(colour: int) -> tuple[float, float, float, float, float, int]:
    kr, kb = _LUMA[colour // 2]
    limited = colour % 2 == 0
    return kr, 1 - kr - kb, kb, 219 / 255 if limited else 1.0, 224 / 255 if limited else 1.0, 16 if limited else 0


def to_planes(bgr: NDArray[np.uint8], name: str, colour: int) -> list[NDArray[np.uint8]]:
    """A BGR picture in another format, by the formulas in the library's colour.hpp, in fixed point."""
    if name == "bgr":
        return [bgr]
    if name == "rgb":
        return [bgr[..., ::-1]]
    if name == "bgra":
        return [np.dstack([bgr, np.full(bgr.shape[:2], 255, np.uint8)])]
    kr, kg, kb, luma, chroma, offset = _scales(colour)
    b, g, r = (bgr[..., channel].astype(np.int64) for channel in range(3))
    u_scale, v_scale = chroma / (2 * (1 - kb)), chroma / (2 * (1 - kr))
    y = _fixed(luma * kr) * r + _fixed(luma * kg) * g + _fixed(luma * kb) * b + (offset << BITS)
    r, g, b = r[::2, ::2], g[::2, ::2], b[::2, ::2]
    u = _fixed(-u_scale * kr) * r + _fixed(-u_scale * kg) * g + _fixed(u_scale * (1 - kb)) * b + (128 << BITS)
    v = _fixed(v_scale * (1 - kr)) * r + _fixed(-v_scale * kg) * g + _fixed(-v_scale * kb) * b + (128 << BITS)
    if name == "nv12":
        return [_levels(y), np.stack([_levels(u), _levels(v)], axis=-1)]
    return [_levels(y), _levels(u), _levels(v)]


def to_bgr(planes: list[NDArray[np.uint8]], name: str, colour: int) -> NDArray[np.uint8]:
    """The other way."""
    if name in ("bgr", "bgra"):
        return planes[0][..., :3]
    if name == "rgb":
        return planes[0][..., ::-1]
    kr, kg, kb, luma, chroma, offset = _scales(colour)
    height, width = planes[0].shape
    half = [planes[1][..., 0], planes[1][..., 1]] if name == "nv12" else planes[1:]
    u, v = (np.repeat(np.repeat(plane, 2, 0), 2, 1)[:height, :width].astype(np.int64) - 128 for plane in half)
    y = np.maximum(planes[0].astype(np.int64) - offset, 0) * _fixed(1 / luma)
    red = y + _fixed(2 * (1 - kr) / chroma) * v
    blue = y + _fixed(2 * (1 - kb) / chroma) * u
    green = y + _fixed(-2 * (1 - kb) * kb / kg / chroma) * u + _fixed(-2 * (1 - kr) * kr / kg / chroma) * v
    return np.stack([_levels(blue), _levels(green), _levels(red)], axis=-1)
