"""Inference backends: one small interface, found by name, chosen by what the machine has."""

from __future__ import annotations

from derain.card import ModelCard
from derain.errors import BackendError
from derain.runtime.backends import (
    native,
    onnxruntime_cpu,
    onnxruntime_gpu,
    openvino_cpu,
    tensorrt_gpu,
)
from derain.runtime.backends.base import Backend, find, registered

__all__ = ["Backend", "available", "choose", "find", "native", "registered"]


def available() -> dict[str, str | None]:
    """Backend name -> why it cannot be used here, or None when it can."""
    return {name: backend.unavailable() for name, backend in registered().items()}


def choose(wanted: str, card: ModelCard, engine: bool = False) -> tuple[type[Backend], str]:
    """The backend for a model, and the reason for the choice, for people to read.

    ``auto`` takes TensorRT or ONNX Runtime's CUDA provider where there is a GPU that works. On a CPU it takes OpenVINO
    for float models where it is installed, else ONNX Runtime. An INT8 model goes to ONNX Runtime, whose arithmetic is
    then exact on every CPU; OpenVINO's saturates on CPUs without VNNI.

    Args:
        engine: the file is a TensorRT engine, which nothing else can run.

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
        if card.precision.kind == "int8":
            order.append((onnxruntime_cpu.OnnxRuntimeCpu, "auto: exact INT8 arithmetic on every CPU"))
            order.append((openvino_cpu.OpenVinoCpu, "auto: the only one here"))
        else:
            order.append((openvino_cpu.OpenVinoCpu, "auto: OpenVINO is installed"))
            order.append((onnxruntime_cpu.OnnxRuntimeCpu, "auto: OpenVINO is not installed"))
    reasons = []
    for backend, reason in order:
        problem = backend.unavailable()
        if problem is None:
            return backend, reason
        reasons.append(f"{backend.name}: {problem}")
    raise BackendError(
        f"No inference backend can be used here ({' '.join(reasons)})",
        fix="Use the .onnx file, which also runs without a GPU" if engine else 'Install one: pip install "derain[cpu]"',
    )
