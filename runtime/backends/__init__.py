"""Inference backends: one small interface, found by name, chosen by what the machine has."""

from __future__ import annotations

from pathlib import Path

from derain.card import ModelCard
from derain.errors import BackendError
from derain.runtime.backends import (
    native,
    onnxruntime_cpu,
    onnxruntime_gpu,
    openvino_bfloat16,
    openvino_cpu,
    tensorrt_gpu,
)
from derain.runtime.backends.base import Backend, find, registered
from derain.runtime.backends.measured import fastest
from derain.runtime.backends.threads import default_threads

__all__ = ["Backend", "available", "choose", "find", "native", "openvino_bfloat16", "registered"]


def available() -> dict[str, str | None]:
    """Backend name -> why it cannot be used here, or None when it can."""
    return {name: backend.unavailable() for name, backend in registered().items()}


def choose(
    wanted: str, card: ModelCard, engine: bool = False, path: Path | None = None, threads: int | None = None
) -> tuple[type[Backend], str]:
    """The backend for a model, and the reason for the choice, for people to read.

    ``auto`` takes TensorRT or ONNX Runtime's CUDA provider where there is a GPU that works. On a CPU it takes the
    faster of OpenVINO and ONNX Runtime for a float model, by a measurement that is remembered (see
    :func:`derain.runtime.backends.measured.fastest`); where only one is installed, or no ``path`` is given, nothing is
    measured and OpenVINO goes first. An INT8 model goes to ONNX Runtime, whose arithmetic is then exact on every CPU;
    OpenVINO's saturates on CPUs without VNNI.

    Args:
        wanted: a backend's name, or ``auto``.
        card: of the model.
        engine: the file is a TensorRT engine, which nothing else can run.
        path: the model's file, to measure.
        threads: CPU threads of one inference, as for :class:`Backend`.

    Raises:
        UsageError: no backend is called ``wanted``.
        MissingDependencyError, BackendError: the one asked for, or every one, is not usable here.
    """
    if wanted != "auto":
        backend = find(wanted)
        backend.import_package()
        return backend, "asked for"
    order: list[tuple[type[Backend], str]] = [
        (tensorrt_gpu.TensorRt, "auto: TensorRT and a GPU are here"),
        (tensorrt_gpu.TensorRtRtx, "auto: TensorRT-RTX and a GPU are here"),
    ]
    if not engine:
        order.append((onnxruntime_gpu.OnnxRuntimeCuda, "auto: a GPU is here, and no TensorRT"))
        if card.precision.kind in ("int8", "float8"):
            order.append((onnxruntime_cpu.OnnxRuntimeCpu, "auto: exact 8-bit arithmetic on every CPU"))
            order.append((openvino_cpu.OpenVinoCpu, "auto: the only one here"))
        else:
            order.append((openvino_cpu.OpenVinoCpu, "auto: OpenVINO is installed"))
            order.append((onnxruntime_cpu.OnnxRuntimeCpu, "auto: OpenVINO is not installed"))
    reasons = []
    for backend, reason in order:
        problem = backend.unavailable()
        if problem is None:
            rival = onnxruntime_cpu.OnnxRuntimeCpu
            if backend is openvino_cpu.OpenVinoCpu and path is not None and rival.unavailable() is None:
                return fastest([backend, rival], path, card, threads or default_threads())
            return backend, reason
        reasons.append(f"{backend.name}: {problem}")
    raise BackendError(
        f"No inference backend can be used here ({' '.join(reasons)})",
        fix="Use the .onnx file, which also runs without a GPU" if engine else 'Install one: pip install "derain[cpu]"',
    )
