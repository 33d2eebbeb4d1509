"""derain inside an application that owns a PyCUDA context: its arrays, page-locked memory and streams as they are.

    import pycuda.autoinit
    from derain.runtime.backends.pycuda_adapter import use_context
    from derain.runtime.device import load_on_device

    with load_on_device("edge", cuda=use_context()) as model:
        clean, rain = model(gpu_array, stream=stream)     # GPUArray in, in the order of a pycuda.driver.Stream

Nothing here imports PyCUDA before it is used: without a driver it does not import at all.
"""

from __future__ import annotations

from typing import Any

from derain.errors import BackendError, MissingDependencyError
from derain.runtime.backends.cuda_python import ForeignContext
from derain.runtime.backends.device_array import DeviceArray


def use_context(context: Any = None) -> ForeignContext:
    """A CUDA layer that works in a PyCUDA context.

    Args:
        context: a ``pycuda.driver.Context``; None for the one that is current.

    Raises:
        MissingDependencyError: PyCUDA is not installed.
        BackendError: PyCUDA does not import, or no context is current.
    """
    if context is None:
        driver = _driver()
        context = driver.Context.get_current()
        if context is None:
            raise BackendError("No PyCUDA context is current", fix="Make one first: import pycuda.autoinit")
    return ForeignContext(context)


def to_gpuarray(array: DeviceArray) -> Any:
    """A result as a ``pycuda.gpuarray.GPUArray`` on the same memory; it keeps the result's owner alive."""
    _driver()
    from pycuda import gpuarray

    return gpuarray.GPUArray(array.shape, array.dtype, base=array, gpudata=array.address)


def _driver() -> Any:
    try:
        from pycuda import driver
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pycuda", needed_for="The PyCUDA adapter", extra="pycuda") from error
    except ImportError as error:
        raise BackendError(f"PyCUDA is installed but does not import ({error})", fix="See derain doctor") from error
    return driver
