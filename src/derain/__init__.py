"""Derain: remove rain from pictures and video, on the machine where the camera is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from derain.runtime.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(model: str | Path, backend: str = "auto", threads: int | None = None) -> Model:
    """Open a model for frames in, frames out.

    Args:
        model: a shipped name (see ``derain models``) or the path of a model file.
        backend: name of an inference backend; ``"auto"`` takes the fastest one here that can run the model.
        threads: CPU threads for inference; None leaves the choice to the backend.

    Returns:
        A context manager; ``model(frame)`` takes a uint8 (H, W, 3) BGR frame and returns a new one of the same shape.

    Raises:
        ModelFileError: no such model, or a damaged file.
        BackendError: no backend here can run it.
        MissingDependencyError: the package behind the backend is not installed.
    """
    from derain.runtime.model import load as load_model

    return load_model(model, backend=backend, threads=threads)
