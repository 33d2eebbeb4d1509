"""Tests that need an NVIDIA GPU: ``python -m pytest tests/gpu -s``. Each says why it skips where it cannot run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from derain.errors import DerainError
from derain.runtime.backends.cuda_python import CudaPython
from derain.runtime.backends.tensorrt_gpu import EngineBackend, TensorRt, TensorRtRtx
from derain.runtime.engine.driver import probe_driver

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))  # the stand-in models


@pytest.fixture(scope="session")
def cuda() -> CudaPython:
    driver = probe_driver()
    if not driver.usable:
        pytest.skip(f"needs an NVIDIA GPU: {driver.problem}")
    try:
        return CudaPython()
    except DerainError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def engine_backend(cuda: CudaPython) -> type[EngineBackend]:
    """TensorRT, else TensorRT-RTX."""
    reasons = [(backend, backend.unavailable()) for backend in (TensorRt, TensorRtRtx)]
    for backend, problem in reasons:
        if problem is None:
            return backend
    pytest.skip("; ".join(str(problem) for _, problem in reasons))
