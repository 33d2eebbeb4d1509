"""libderain, the C++ runtime, behind the interface of every backend: what an embedding application runs."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from derain.card import Port
from derain.errors import BackendError
from derain.runtime.backends import native_library
from derain.runtime.backends.base import Backend, Buffers, dtype_of, register, shape_of

# Layout and type of the ports whose arrays are frames or rain maps of the C API, as they are or as float32.
_FORMS: Final = {
    ("NHWC", "uint8"),
    ("NCHW", "float32"),
    ("NCHW", "float16"),
    ("NHW", "float32"),
    ("NHW", "float16"),
}


@register
class Native(Backend):
    """libderain on the caller's NumPy buffers: uint8 and float32 frames are neither copied nor converted on the way."""

    name = "native"
    package = "libderain"
    extra = ""

    @classmethod
    def import_package(cls) -> ModuleType:
        """The shared library is no Python package: this makes sure that it can be loaded.

        Raises:
            BackendError: it is not on this machine, or cannot be loaded.
        """
        native_library.open_library(native_library.library_path())
        return ctypes

    @property
    def device(self) -> str:
        """The engine inside the library, its version and the device."""
        library = native_library.open_library(native_library.library_path())
        version = library.derain_version().decode()
        return f"libderain {version} with {self._engine}" if self._open else f"libderain {version}"

    def _open_impl(self) -> None:
        for port in (*self.card.inputs, *self.card.outputs):
            if (port.layout, port.dtype) not in _FORMS:
                raise BackendError(
                    f"libderain takes no frames of {port.dtype} {port.layout}, as '{port.name}' of '{self.path}' is",
                    expected="uint8 NHWC, or float NCHW",
                    fix="Use another backend, or export the model again with --frames bgr",
                )
        library = native_library.open_library(native_library.library_path())
        options = native_library.Options()
        library.derain_options_default(byref(options))
        options.threads = self.threads
        handle = c_void_p()
        native_library.check(library, library.derain_open(str(self.path).encode(), byref(options), byref(handle)))
        info = native_library.Info()
        library.derain_info_init(byref(info))
        native_library.check(library, library.derain_get_info(handle, byref(info)))
        self._library, self._handle, self._engine = library, handle, info.device.decode()

    def _close_impl(self) -> None:
        self._library.derain_close(self._handle)
        del self._library, self._handle

    def _infer_impl(self, inputs: Buffers, outputs: Buffers) -> None:
        (source,) = self.card.inputs
        attention = next(port for port in self.card.outputs if port.channels == "attention")
        derained = next(port for port in self.card.outputs if port is not attention)
        batch, height, width = self._size(source, inputs[source.name])
        if batch != 1:
            raise BackendError(f"{self.device} was given {batch} frames at once", expected="one frame a call")
        given = {source.name: inputs[source.name], **outputs}
        for port in (source, derained, attention):
            self._require_form(port, given[port.name], height, width)
        # The C API has no half floats. Every half is a float32 too, so a copy changes no value.
        arrays = {
            name: array.astype(np.float32, copy=False) for name, array in given.items() if array.dtype != np.uint8
        }
        arrays = {**given, **arrays}
        request = native_library.Request()
        self._library.derain_request_default(byref(request))
        rainy = self._frame(source, arrays[source.name], height, width)
        clean = self._frame(derained, arrays[derained.name], height, width)
        request.rainy, request.clean = ctypes.pointer(rainy), ctypes.pointer(clean)
        request.rain = arrays[attention.name].ctypes.data
        native_library.check(self._library, self._library.derain_run_request(self._handle, byref(request)))
        for name, array in outputs.items():
            if arrays[name] is not array:
                array[...] = arrays[name]

    @staticmethod
    def _size(port: Port, array: NDArray[Any]) -> tuple[int, int, int]:
        batch, *sides = array.shape
        return (batch, *(sides[:2] if port.layout == "NHWC" else sides[-2:]))

    def _require_form(self, port: Port, array: NDArray[Any], height: int, width: int) -> None:
        """Make sure that the library will not read or write beyond the end of an array."""
        shape = shape_of(port, 1, height, width)
        if array.shape != shape or array.dtype != dtype_of(port) or not array.flags.c_contiguous:
            raise BackendError(
                f"{self.device} failed on '{self.path}': the array for '{port.name}' has the shape {array.shape} and "
                f"the type {array.dtype}",
                expected=f"{shape}, {port.dtype}, without gaps",
            )

    def _frame(self, port: Port, array: NDArray[Any], height: int, width: int) -> native_library.Frame:
        address: int = array.ctypes.data
        if port.dtype == "uint8":
            pixel_format = native_library.BGR if port.channels == "BGR" else native_library.RGB
            return native_library.new_frame(self._library, pixel_format, width, height, address)
        planes = [address + 4 * height * width * plane for plane in range(3)]
        ordered = planes if port.channels == "RGB" else planes[::-1]
        return native_library.new_frame(self._library, native_library.RGB_PLANAR_F32, width, height, *ordered)
