"""Which of two CPU backends computes a model faster on this machine: measured once, then remembered in a file.

Neither engine is the faster one everywhere: it depends on the model, the CPU, the threads and the versions. These are
the key under which an answer is kept, in a file of its own in the cache folder. A file that cannot be read, or that was
damaged, only means measuring again; one that cannot be written, measuring every time.
"""

from __future__ import annotations

import hashlib
import platform
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from derain.card import ModelCard
from derain.errors import BackendError, DerainError
from derain.files import atomic_path, file_sha256
from derain.runtime.backends.base import Backend, Buffers, dtype_of, shape_of
from derain.runtime.engine.store import cache_folder

Candidates = Sequence[type[Backend]]

SIZE = (352, 640)
_WARM_UP = 4  # OpenVINO compiles for one size after three frames of it
_ROUNDS = 5
_SECONDS = 1.5  # no further round is begun after that
_LARGEST = 1280 * 720  # pixels of a frame; a model of larger fixed size would take too long
_FILE_LIMIT = 4096


class Answer(BaseModel):
    """One measurement, as it is kept."""

    model_config = ConfigDict(extra="forbid")

    key: str
    milliseconds: dict[str, float] = Field(min_length=2)


def fastest(candidates: Candidates, path: Path, card: ModelCard, threads: int) -> tuple[type[Backend], str]:
    """The faster of two backends for a model, and the reason for people to read.

    Takes one to two seconds the first time, most of it for opening the model twice; nothing later.

    Args:
        candidates: at least two that can be used here; the first is taken where nothing can be measured.
        path: the model.
        card: its card.
        threads: CPU threads of one inference.

    Raises:
        DerainError: none of them runs the model; the error is that of the first.
    """
    size = _size(card)
    if size is None:
        return candidates[0], f"auto: {candidates[0].name} runs models of this kind by default, not measured"
    key = _key(candidates, path, size, threads)
    file = cache_folder() / "cpu-backends" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    answer = _read(file, key, candidates)
    remembered = answer is not None
    if answer is None:
        times, failures = _measure(candidates, path, card, size, threads)
        if len(times) < len(candidates):
            chosen = next((backend for backend in candidates if backend.name in times), None)
            if chosen is None:
                raise failures[0]
            return chosen, f"auto: the other refuses the model ({failures[0]})"
        answer = Answer(key=key, milliseconds=times)
        _write(file, answer)
    times = answer.milliseconds
    ordered = sorted(candidates, key=lambda backend: times[backend.name])
    others = ", ".join(f"{times[backend.name]:.1f} ms with {backend.name}" for backend in ordered[1:])
    reason = (
        f"auto: the fastest here, {times[ordered[0].name]:.1f} ms against {others} at {size[1]}x{size[0]}, "
        f"{'measured earlier' if remembered else 'measured now'}"
    )
    return ordered[0], reason


def _size(card: ModelCard) -> tuple[int, int] | None:
    """Height and width to measure at; None for models that take something else than one picture, or are too large."""
    if card.part != "whole" or len(card.inputs) != 1 or card.inputs[0].channels not in ("BGR", "RGB"):
        return None
    height, width = card.profile.opt[1:] if card.profile.fixed else SIZE
    return (height, width) if height * width <= _LARGEST else None


def _key(candidates: Candidates, path: Path, size: tuple[int, int], threads: int) -> str:
    versions = [f"{backend.name} {backend.import_package().__version__}" for backend in candidates]
    parts = [file_sha256(path), f"{size[1]}x{size[0]}", f"{threads} threads", *sorted(versions), _cpu()]
    return " | ".join(parts)


def _cpu() -> str:
    try:
        found = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _measure(
    candidates: Candidates, path: Path, card: ModelCard, size: tuple[int, int], threads: int
) -> tuple[dict[str, float], list[DerainError]]:
    """Milliseconds of each that runs the model, the least of some interleaved runs; and why others do not."""
    opened: list[Backend] = []
    times: dict[str, float] = {}
    failures: list[DerainError] = []
    inputs, outputs = _buffers(card, size)
    try:
        for candidate in candidates:
            backend = candidate(path, card, threads)
            try:
                backend.open()
                opened.append(backend)
                for _ in range(_WARM_UP):
                    backend.infer(inputs, outputs)
                times[backend.name] = float("inf")
            except BackendError as error:
                failures.append(error)
        until = time.perf_counter() + _SECONDS
        for _ in range(_ROUNDS):
            for backend in opened:
                if backend.name in times:
                    begun = time.perf_counter()
                    backend.infer(inputs, outputs)
                    times[backend.name] = min(times[backend.name], 1e3 * (time.perf_counter() - begun))
            if time.perf_counter() > until:
                break
    finally:
        for backend in opened:
            backend.close()
    return times, failures


def _buffers(card: ModelCard, size: tuple[int, int]) -> tuple[Buffers, Buffers]:
    """A frame of noise, which no engine can treat as a special case, and room for the results."""
    port = card.inputs[0]
    levels: Any = np.random.default_rng(0).integers(0, 256, shape_of(port, 1, *size), np.uint8)
    frame = levels if port.dtype == "uint8" else (levels / 255).astype(dtype_of(port))
    return {port.name: frame}, {port.name: np.empty(shape_of(port, 1, *size), dtype_of(port)) for port in card.outputs}


def _read(file: Path, key: str, candidates: Candidates) -> Answer | None:
    try:
        with file.open("rb") as stream:
            answer = Answer.model_validate_json(stream.read(_FILE_LIMIT))
    except (OSError, ValidationError):
        return None
    known = {backend.name for backend in candidates} == set(answer.milliseconds)
    return answer if known and answer.key == key else None


def _write(file: Path, answer: Answer) -> None:
    try:
        with atomic_path(file) as temporary:
            temporary.write_text(answer.model_dump_json(), encoding="utf-8")
    except (OSError, DerainError):
        pass  # it will be measured again
