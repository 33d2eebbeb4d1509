"""DLPack capsules through ctypes: the few structures of ``dlpack.h``, and nothing more.

The protocol: https://dmlc.github.io/dlpack/latest/python_spec.html
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from derain.errors import FrameError

CPU, CUDA = 1, 2  # DLDeviceType
_NAME, _USED = b"dltensor", b"used_dltensor"
_KINDS = {"i": 0, "u": 1, "f": 2}  # DLDataTypeCode of NumPy's kinds


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", _Deleter)]
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_api = ctypes.pythonapi
_new = _api.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, _Destructor)
_get = _api.PyCapsule_GetPointer
_get.restype, _get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_is_valid = _api.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)
_rename = _api.PyCapsule_SetName
_rename.restype, _rename.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)
# Destructors get a bare pointer: the capsule is being destroyed, and must not be referenced again.
_get_raw = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_is_valid_raw = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))

_exported: dict[int, tuple[Any, ...]] = {}
"""What must live as long as a consumer holds a capsule's tensor, by the address of the structure."""


class View:
    """A tensor taken from a capsule; the producer's memory is given back when this goes. Strides in bytes."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed
        tensor = managed.contents.tensor
        if tensor.lanes != 1 or tensor.code not in _KINDS.values():
            raise FrameError(f"The DLPack array has type code {tensor.code} with {tensor.lanes} lanes")
        kind = next(kind for kind, code in _KINDS.items() if code == tensor.code)
        self.dtype = np.dtype(f"{kind}{tensor.bits // 8}")
        self.shape = tuple(int(tensor.shape[axis]) for axis in range(tensor.ndim))
        steps = tuple(int(tensor.strides[axis]) for axis in range(tensor.ndim)) if tensor.strides else None
        self.strides = None if steps is None else tuple(step * self.dtype.itemsize for step in steps)
        self.address = int(tensor.data or 0) + int(tensor.byte_offset)

    def __del__(self) -> None:
        managed, self._managed = self._managed, None
        if managed and managed.contents.deleter:
            managed.contents.deleter(managed)


def take(capsule: Any) -> View:
    """Take a producer's capsule; it cannot be taken again.

    Raises:
        FrameError: no capsule, or one that was taken before.
    """
    try:
        usable = bool(_is_valid(capsule, _NAME))
    except ctypes.ArgumentError:
        usable = False
    if not usable:
        raise FrameError("The DLPack capsule was used before, or is none", expected="a new one from __dlpack__()")
    managed = ctypes.cast(_get(capsule, _NAME), ctypes.POINTER(_Managed))
    _rename(capsule, _USED)
    return View(managed)


def export(
    address: int, shape: tuple[int, ...], dtype: np.dtype[Any], device_type: int, device: int, owner: Any
) -> Any:
    """A capsule over memory; ``owner`` is kept until the consumer is done with it."""
    sides = (ctypes.c_int64 * len(shape))(*shape)
    managed = _Managed()
    tensor = managed.tensor
    tensor.data, tensor.device_type, tensor.device_id = address, device_type, device
    tensor.ndim, tensor.shape, tensor.strides, tensor.byte_offset = len(shape), sides, None, 0
    tensor.code, tensor.bits, tensor.lanes = _KINDS[dtype.kind], dtype.itemsize * 8, 1
    managed.deleter = _DELETER
    key = ctypes.addressof(managed)
    _exported[key] = (managed, sides, owner)
    return _new(key, _NAME, _DESTRUCTOR)


def _forget(managed: Any) -> None:
    _exported.pop(ctypes.addressof(managed.contents), None)


def _drop_unused(capsule: int) -> None:
    """The capsule goes; if nobody took the tensor, its memory goes with it."""
    if _is_valid_raw(capsule, _NAME):
        _exported.pop(int(_get_raw(capsule, _NAME) or 0), None)


_DELETER = _Deleter(_forget)
_DESTRUCTOR = _Destructor(_drop_unused)
