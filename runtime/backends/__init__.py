"""Inference backends: one small interface, found by name, chosen by what the machine has."""

from __future__ import annotations

from derain.card import ModelCard
from derain.errors import BackendError
from derain.runtime.backends import onnxruntime_cpu, openvino_cpu
from derain.runtime.backends.base import Backend, find, registered

__all__ = ["Backend", "available", "choose", "find", "registered"]


def available() -> dict[str, str | None]:
    """Backend name -> why it cannot be used here, or None when it can."""
    return {name: backend.unavailable() for name, backend in registered().items()}


def choose(wanted: str, card: ModelCard) -> tuple[type[Backend], str]:
    """The backend for a model, and the reason for the choice, for people to read.

    ``auto`` takes OpenVINO for float models where it is installed, else ONNX Runtime. An INT8 model goes to ONNX
    Runtime, whose arithmetic is then exact on every CPU; OpenVINO's saturates on CPUs without VNNI.

    Raises:
        UsageError: no backend is called ``wanted``.
        MissingDependencyError, BackendError: the one asked for, or every one, is not usable here.
    """
    if wanted != "auto":
        backend = find(wanted)
        backend.import_package()
        return backend, "asked for"
    openvino: tuple[type[Backend], str] = openvino_cpu.OpenVinoCpu, "auto: OpenVINO is installed"
    onnxruntime: tuple[type[Backend], str] = onnxruntime_cpu.OnnxRuntimeCpu, "auto: OpenVINO is not installed"
    if card.precision.kind == "int8":
        order = [(onnxruntime[0], "auto: exact INT8 arithmetic on every CPU"), (openvino[0], "auto: the only one here")]
    else:
        order = [openvino, onnxruntime]
    reasons = []
    for backend, reason in order:
        problem = backend.unavailable()
        if problem is None:
            return backend, reason
        reasons.append(f"{backend.name}: {problem}")
    raise BackendError(
        f"No inference backend can be used here ({' '.join(reasons)})", fix='Install one: pip install "derain[cpu]"'
    )
