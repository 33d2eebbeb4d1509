"""NVIDIA's real CUDA bindings take every call of our layer with the arguments that it gives.

Without a driver each call answers with an error code, and one of wrong arguments with a TypeError: so what can be told
without a GPU is told by the real thing. It happens in a process of its own, which may crash.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from derain.runtime.backends.cuda_api import CudaApi
from derain.runtime.engine.driver import probe_driver

_CALLS = """
import json
import numpy as np
from cuda.bindings import runtime
from derain.runtime.backends.cuda_api import CudaError, HostBuffer
from derain.runtime.backends.cuda_python import CudaPython

cuda = CudaPython.__new__(CudaPython)  # its own beginning asks for a driver
cuda._runtime, cuda._device = runtime, 0
pixels, handle = np.zeros(4, np.uint8), 4096
calls = {
    "current": lambda: cuda.current().__enter__(),
    "allocate": lambda: cuda.allocate(64),
    "free": lambda: cuda.free(handle),
    "allocate_host": lambda: cuda.allocate_host(64, True),
    "free_host": lambda: cuda.free_host(HostBuffer(pixels, None, handle)),
    "create_stream": cuda.create_stream,
    "destroy_stream": lambda: cuda.destroy_stream(handle),
    "synchronize": lambda: cuda.synchronize(handle),
    "create_event": cuda.create_event,
    "destroy_event": lambda: cuda.destroy_event(handle),
    "record": lambda: cuda.record(handle, handle),
    "wait": lambda: cuda.wait(handle, handle),
    "synchronize_event": lambda: cuda.synchronize_event(handle),
    "copy_in": lambda: cuda.copy_in(handle, pixels, handle),
    "copy_out": lambda: cuda.copy_out(pixels, handle, handle),
    "begin_capture": lambda: cuda.begin_capture(handle),
    "end_capture": lambda: cuda.end_capture(handle),
    "launch_graph": lambda: cuda.launch_graph(handle, handle),
    "destroy_graph": lambda: cuda.destroy_graph(handle),
    "free_memory": cuda.free_memory,
    # Calls behind another one that fails first.
    "cudaHostGetDevicePointer": lambda: cuda._call("cudaHostGetDevicePointer", handle, 0),
    "cudaGraphInstantiate": lambda: cuda._call("cudaGraphInstantiate", handle, 0),
    "cudaGraphDestroy": lambda: cuda._call("cudaGraphDestroy", handle),
    "cudaGetDeviceProperties": lambda: cuda._call("cudaGetDeviceProperties", 0),
    "cudaDeviceGetAttribute": lambda: cuda._call(
        "cudaDeviceGetAttribute", runtime.cudaDeviceAttr.cudaDevAttrIntegrated, 0
    ),
}
answers = {}
for name, call in calls.items():
    try:
        answers[name] = f"gave {call()!r}"
    except CudaError as error:
        answers[name] = error.code
    except Exception as error:
        answers[name] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


def test_the_real_bindings_take_every_call() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    if probe_driver().usable:
        pytest.skip("there is a GPU: see tests/gpu")
    done = subprocess.run([sys.executable, "-c", _CALLS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    methods = {name for name in vars(CudaApi) if not name.startswith("_")} - {"integrated", "description"}
    assert methods <= set(answers)
    assert set(answers.values()) <= {"cudaErrorInsufficientDriver", "cudaErrorNoDevice"}, answers
