"""The small stand-in for a large frame: the context is the same, the memory is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from derain.card import CARD_KEY, ContextReading, ModelCard, read_card
from derain.companions import beside
from derain.models import shipped
from derain.runtime.overview import overview, pixels_read
from derain.runtime.tiling import load_tiled
from derain.train.networks.context import READING, thumbnail

GRID = 16
EDGE = ContextReading(cell=READING[0], places=READING[1])
SMALL = ContextReading(cell=2, places=8)


def frame_of(height: int, width: int) -> NDArray[np.uint8]:
    """Differs everywhere, smoothly and not: a cell taken for its neighbour shows."""
    noise = np.random.default_rng(height + width).integers(0, 64, (height, width, 3), np.uint8)
    return noise + np.linspace(0, 190, width, dtype=np.uint8)[None, :, None]


def seen(frame: NDArray[np.uint8], places: int, cell: int) -> torch.Tensor:
    """Cells of a padded frame as a network reads them: mean, largest and least, interpolated at its places."""
    height, width = frame.shape[:2]
    padded = np.pad(frame, ((0, -height % GRID), (0, -width % GRID), (0, 0)), "edge")
    picture = torch.from_numpy(padded).permute(2, 0, 1)[None].double()
    pooled = [F.avg_pool2d(picture, cell), F.max_pool2d(picture, cell), F.max_pool2d(-picture, cell)]
    return F.interpolate(torch.cat(pooled, 1), size=(places, places), mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(64, 512), (65, 400), (223, 700), (1000, 33), (256, 255), (63, 64)])
def test_what_is_read_is_the_same(size: tuple[int, int]) -> None:
    frame = frame_of(*size)
    small = overview(frame, SMALL, GRID)
    assert small.shape[0] < frame.shape[0] or size[0] <= 64
    assert small.shape[0] * small.shape[1] < frame.shape[0] * frame.shape[1] or size == (63, 64)
    assert all(side <= max(given, 4 * 8 * 2) for side, given in zip(small.shape[:2], size, strict=True))
    torch.testing.assert_close(seen(small, 8, 2), seen(frame, 8, 2), atol=1e-9, rtol=0)


def test_the_thumbnail_of_the_networks_is_read_like_this() -> None:
    frame = frame_of(2176, 3088)
    small = overview(frame, EDGE, GRID)
    assert small.shape == (1152, 1040, 3)
    pictures = [torch.from_numpy(f).permute(2, 0, 1)[None] / 255 for f in (frame, small)]
    torch.testing.assert_close(thumbnail(pictures[1]), thumbnail(pictures[0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [17, 720, 1080, 2032])
def test_nothing_is_left_out_of_a_frame_that_is_read_whole(length: int) -> None:
    assert pixels_read(length, EDGE, GRID) is None


def test_nor_where_what_is_left_would_not_fit_the_grid() -> None:
    """Padding would shift the places."""
    assert pixels_read(4000, ContextReading(cell=4, places=125), 7) is None


def with_reading(folder: Path) -> Path:
    """A shipped model in its tiled form, whose companion tells what it reads."""
    model = shipped()["nano"]
    if "tile" not in model.companions:
        pytest.skip("'nano' does not ship in its tiled form")
    path = folder / "nano.onnx"
    for source, target in [
        (model.path, path),
        *((beside(model.path, p), beside(path, p)) for p in ("tile", "context")),
    ]:
        graph = onnx.load(str(source))
        card = read_card(source)
        if card.part == "context":
            card = ModelCard.model_validate({**card.model_dump(), "context_reading": EDGE})
        del graph.metadata_props[:]
        onnx.helper.set_model_props(graph, {CARD_KEY: card.to_json()})
        onnx.save(graph, str(target))
    return path


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_models_context_is_that_of_the_whole_frame(tmp_path: Path, backend: str) -> None:
    frame = frame_of(2100, 4100)
    with load_tiled(with_reading(tmp_path), backend, 1, 512) as tiled, load_tiled("nano", backend, 1, 512) as plain:
        context = plain._tiles._context  # type: ignore[union-attr]
        context.card = context.card.model_copy(update={"context_reading": None})
        expected = np.array(plain._tiles.prepare(frame))
        found = tiled._tiles.prepare(frame)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=2e-4)


_CHILD = """
import resource, sys
import numpy as np
from derain.runtime.tiling import load_tiled

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

frame = np.full((4320, 7680, 3), 90, np.uint8)
with load_tiled(sys.argv[1], sys.argv[2], 1, 512) as tiled:
    before = peak()
    if sys.argv[3] == "context":
        tiled._tiles.prepare(frame)
    else:
        frame[::7] = 200
        before += 100  # MiB of the result
        tiled(frame)
    print(peak() - before)
"""


def grown(path: Path, backend: str, what: str) -> float:
    """MiB that the context of an 8K frame, or all of it in tiles of 512, take beside frame and result."""
    command = [sys.executable, "-c", _CHILD, str(path), backend, what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_memory_of_the_context_is_bounded_at_8k(tmp_path: Path, backend: str) -> None:
    """1 to 5 GB without the overview."""
    assert grown(with_reading(tmp_path), backend, "context") < 600


@pytest.mark.full
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_memory_of_tiles_is_bounded_at_8k(tmp_path: Path, backend: str) -> None:
    assert grown(with_reading(tmp_path), backend, "all") < 700
