"""libderain by ctypes: where it is found, its structures, and its statuses as exceptions.

The structures repeat ``runtime/native/include/derain.h``, where every field is explained.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import ClassVar, Final

from derain.errors import BackendError, DerainError, FrameError, ModelFileError

OK: Final = 0
BGR, RGB, BGRA, NV12, I420, RGB_PLANAR_F32 = 1, 2, 3, 4, 5, 6
_STATUS_ERRORS: dict[int, type[DerainError]] = {2: ModelFileError, 3: FrameError}
_VARIABLE = "DERAIN_LIBRARY"
# Of a checkout in which `cmake -S . -B build/native` was run; an installed package has no such folder.
_BUILT = Path(__file__).resolve().parents[2] / "build" / "native" / "libderain.so"


class Options(Structure):
    """``derain_options``."""

    _fields_: ClassVar = [
        ("struct_size", c_size_t),
        ("backend", c_char_p),
        ("threads", c_int32),
        ("slots", c_int32),
        ("engine", c_char_p),
        ("log", c_void_p),
        ("log_user_data", c_void_p),
    ]


class Info(Structure):
    """``derain_info``."""

    _fields_: ClassVar = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("system", c_char_p),
        ("precision", c_char_p),
        ("backend", c_char_p),
        ("device", c_char_p),
        ("card", c_char_p),
        ("threads", c_int32),
        ("minimum", c_int32),
        ("fixed_width", c_int32),
        ("fixed_height", c_int32),
        ("rain_half", ctypes.c_double),
    ]


class Frame(Structure):
    """``derain_frame``."""

    _fields_: ClassVar = [
        ("struct_size", c_size_t),
        ("format", c_int32),
        ("colour", c_int32),
        ("width", c_int32),
        ("height", c_int32),
        ("plane", c_void_p * 3),
        ("stride", c_size_t * 3),
        ("timestamp", c_int64),
    ]


class Request(Structure):
    """``derain_request``."""

    _fields_: ClassVar = [
        ("struct_size", c_size_t),
        ("rainy", POINTER(Frame)),
        ("clean", POINTER(Frame)),
        ("rain", c_void_p),
        ("rain_stride", c_size_t),
        ("strength", c_float),
        ("overlay", c_float),
        ("user_data", c_void_p),
    ]


class Statistics(Structure):
    """``derain_statistics``."""

    _fields_: ClassVar = [
        ("struct_size", c_size_t),
        ("frames", c_uint64),
        ("seconds", ctypes.c_double),
        ("inference_seconds", ctypes.c_double),
    ]


def library_path() -> str:
    """The library that is used: ``$DERAIN_LIBRARY``, the one installed on this machine, or the checkout's own build.

    Raises:
        BackendError: there is none.
    """
    if named := os.environ.get(_VARIABLE):
        return named
    if _BUILT.is_file():
        return str(_BUILT)
    if installed := ctypes.util.find_library("derain"):
        return installed
    raise BackendError(
        "libderain, the C++ runtime, is not on this machine",
        fix=f"Build it (cmake -S . -B build/native && cmake --build build/native), or name its file in ${_VARIABLE}",
    )


@functools.cache
def open_library(path: str) -> ctypes.CDLL:
    """Load the library once and declare its functions.

    Raises:
        BackendError: the file cannot be loaded, or is not libderain.
    """
    try:
        library = ctypes.CDLL(path)
        for name, result, arguments in (
            ("last_error", c_char_p, []),
            ("version", c_char_p, []),
            ("backend_name", c_char_p, [c_size_t]),
            ("options_default", None, [POINTER(Options)]),
            ("info_init", None, [POINTER(Info)]),
            ("frame_init", None, [POINTER(Frame), c_int, c_int32, c_int32]),
            ("request_default", None, [POINTER(Request)]),
            ("statistics_init", None, [POINTER(Statistics)]),
            ("open", c_int, [c_char_p, POINTER(Options), POINTER(c_void_p)]),
            ("close", None, [c_void_p]),
            ("get_info", c_int, [c_void_p, POINTER(Info)]),
            ("run", c_int, [c_void_p, POINTER(Frame), POINTER(Frame)]),
            ("run_request", c_int, [c_void_p, POINTER(Request)]),
            ("submit", c_int, [c_void_p, POINTER(Request)]),
            ("collect", c_int, [c_void_p, c_int32, POINTER(c_void_p)]),
            ("get_statistics", c_int, [c_void_p, POINTER(Statistics)]),
        ):
            function = getattr(library, f"derain_{name}")
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise BackendError(
            f"libderain cannot be loaded from '{path}' ({error})", fix=f"Build it again, or correct ${_VARIABLE}"
        ) from error
    return library


def check(library: ctypes.CDLL, status: int) -> None:
    """Raise what a status means.

    Raises:
        ModelFileError, FrameError, BackendError: with the library's own message.
    """
    if status != OK:
        message = library.derain_last_error().decode(errors="replace")
        raise _STATUS_ERRORS.get(status, BackendError)(message)


def new_frame(library: ctypes.CDLL, pixel_format: int, width: int, height: int, *planes: int) -> Frame:
    """A frame whose rows follow each other without gaps; ``planes`` are addresses."""
    frame = Frame()
    library.derain_frame_init(byref(frame), pixel_format, width, height)
    for index, address in enumerate(planes):
        frame.plane[index] = address
    return frame
