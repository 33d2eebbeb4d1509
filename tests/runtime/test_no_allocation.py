"""A frame costs no memory of its own: what a CPU backend needs is taken once, and results go where the caller says."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from standin import Form, save_model

import derain

HEIGHT, WIDTH = 240, 320
PIXELS = HEIGHT * WIDTH


def taken(run: object) -> int:
    """Most bytes that NumPy and Python held at once during a call, beyond what they held before."""
    assert callable(run)
    for _ in range(6):  # engines compile for the size, caches fill
        run()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5):
            run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["uint8", "uint8_rgb", "float"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_frame_into_given_memory_takes_none(tmp_path: Path, backend: str, form: Form) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    out = np.empty_like(frame)
    with derain.load(save_model(tmp_path / "m.onnx", form), backend, threads=1) as model:
        few = taken(lambda: model(frame, out=out))
        more = taken(lambda: model(frame, attention=True))
    limit = PIXELS // 4 if form == "uint8" else 3 * PIXELS  # of the others, a picture of bytes while it is converted
    assert few < limit
    results = PIXELS * 3 + PIXELS * 4
    assert results <= more < 2 * results + limit  # the new ones, and those of the frame before until they are dropped
