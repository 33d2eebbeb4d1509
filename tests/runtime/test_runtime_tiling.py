"""Tiles against the whole frame: with stand-ins whose reach is known, and with a shipped model at 4K."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from standin import card_of, save_model

import derain
from derain.card import CARD_KEY, Geometry, ModelCard, Port
from derain.companions import beside
from derain.errors import FrameError, ModelFileError, UsageError
from derain.models import shipped
from derain.runtime.tiling import load_tiled, plan

REACH = 21  # side of the square that a pixel sees
CONTEXT = Port(name="context", layout="NC", dtype="float32", channels="context", value_range=(0, 255))


def geometry(tiling: str = "needs_context", reach: int | None = REACH, grid: int = 8) -> Geometry:
    return Geometry(
        multiple_of=grid, minimum=4, receptive_field=reach, tiling=tiling, tiling_reason="it looks at the mean"
    )


def save_part(path: Path, part: str, companion: str | None = None, kind: str = "needs_context") -> Path:
    """A wide blur (zeros outside) minus a tenth of the whole frame's mean colour, in the three forms of export."""
    base = card_of()
    ports: dict[str, Any] = {
        "whole": (base.inputs, base.outputs),
        "tile": ([*base.inputs, CONTEXT], base.outputs),
        "context": (base.inputs, [CONTEXT]),
    }
    inputs, outputs = ports[part]
    card: ModelCard = base.model_copy(
        update={
            "part": part,
            "inputs": inputs,
            "outputs": outputs,
            "companion": companion,
            "geometry": geometry(kind),
            "context_size": 3,
        }
    )
    constants = {
        "kernel": np.full((3, 1, REACH, REACH), 1 / REACH**2, np.float32),
        "tenth": np.float32(0.1),
        "low": np.float32(0),
        "high": np.float32(255),
        "scale": np.float32(1 / 255),
        "sides": np.array([2, 3], np.int64),
        "channel": np.array([1], np.int64),
    }
    half = REACH // 2
    nodes = [
        helper.make_node("Cast", ["frame"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["as_float"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    if part != "tile":
        nodes += [helper.make_node("ReduceMean", ["planes", "sides"], ["context"], keepdims=0)]
    if part != "context":
        nodes += [
            helper.make_node("Unsqueeze", ["context", "sides"], ["spread"]),
            helper.make_node("Mul", ["spread", "tenth"], ["fog"]),
            helper.make_node("Conv", ["planes", "kernel"], ["blurred"], group=3, pads=[half] * 4),
            helper.make_node("Sub", ["blurred", "fog"], ["less"]),
            helper.make_node("Clip", ["less", "low", "high"], ["clipped"]),
            helper.make_node("ReduceMean", ["clipped", "channel"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "scale"], ["attention"]),
            helper.make_node("Round", ["clipped"], ["rounded"]),
            helper.make_node("Transpose", ["rounded"], ["last"], perm=[0, 2, 3, 1]),
            helper.make_node("Cast", ["last"], ["derained"], to=TensorProto.UINT8),
        ]
    shapes = {"NHWC": ["B", "H", "W", 3], "NHW": ["B", "H", "W"], "NC": ["B", 3]}
    types = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}

    def values(ports: list[Port]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(p.name, types[p.dtype], shapes[p.layout]) for p in ports]

    graph = helper.make_graph(
        nodes,
        part,
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, str(path))
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    save_part(tmp_path / "m.tile.onnx", "tile", "m.tile.context.onnx")
    save_part(tmp_path / "m.tile.context.onnx", "context", "m.tile.onnx")
    return save_part(tmp_path / "m.onnx", "whole")


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    noise[: height // 2] //= 2  # tiles differ in their mean, the whole frame has one
    return noise


def compare(path: Path, frame: NDArray[np.uint8], tile: int, backend: str = "onnxruntime") -> tuple[int, float]:
    """Largest differences of the picture (levels) and of the rain map."""
    with derain.load(path, backend, threads=1) as model, load_tiled(path, backend, 1, tile) as tiled:
        before = frame.copy()
        clean, rain = model(frame, attention=True)
        tiled_clean, tiled_rain = tiled(frame, attention=True)
        np.testing.assert_array_equal(frame, before)
        # OpenVINO's sums may differ in the last bit from one call to the next: one value in 25 million was seen to.
        assert np.abs(tiled(frame).astype(int) - tiled_clean).max() <= (backend == "auto")
    return int(np.abs(clean.astype(int) - tiled_clean).max()), float(np.abs(rain - tiled_rain).max())


@pytest.mark.parametrize("size", [(200, 300), (97, 65), (64, 333), (129, 64), (64, 64), (65, 64), (31, 17)])
@pytest.mark.parametrize("tile", [64, 100])
def test_tiles_equal_the_whole_frame(whole: Path, size: tuple[int, int], tile: int) -> None:
    levels, rain = compare(whole, picture(*size), tile)
    assert levels <= 1
    assert rain < 1e-4


def test_the_context_matters(whole: Path) -> None:
    """The check above would fail without the companion: a tile's own mean differs from the frame's."""
    frame = picture(200, 200)
    with load_tiled(whole, "onnxruntime", 1, 64) as tiled:
        right = tiled(frame)
        prepare = tiled._tiles.prepare
        tiled._tiles.prepare = lambda frame: prepare(frame[:64, :64])  # type: ignore[method-assign]
        assert np.abs(right.astype(int) - tiled(frame)).max() > 3


def test_a_network_that_sees_little_needs_no_tile_graph(tmp_path: Path) -> None:
    path = save_model(tmp_path / "standin.onnx")  # 3 x 3 pixels, grid 1
    assert compare(path, picture(150, 201), 40)[0] <= 1


@pytest.mark.parametrize(("length", "tile"), [(1000, 256), (257, 256), (5000, 512), (256, 256), (2161, 640)])
def test_plans_cover_every_pixel_once_and_keep_their_distance(length: int, tile: int) -> None:
    reach = geometry()
    spans = plan(length, tile, reach)
    assert spans[0].first == 0
    assert spans[-1].last == length
    for span in spans:
        assert span.start % reach.multiple_of == 0
        assert 0 < span.end - span.start <= tile
        assert span.start == 0 or span.first - span.start >= REACH / 2
        assert span.end == length or span.end - span.last >= REACH / 2
    for before, after in itertools.pairwise(spans):
        assert after.first + after.fade <= before.last, "fades in where the other is still valid"


def test_refusals(tmp_path: Path, whole: Path) -> None:
    unsound = save_model(tmp_path / "norm.onnx", card=card_of(geometry=geometry("unsound", None)))
    with pytest.raises(UsageError, match="cannot be tiled: it looks at the mean"):
        load_tiled(unsound)
    with pytest.raises(UsageError, match=r"smaller than its overlap.*at least 56"):
        load_tiled(whole, tile=40)
    with load_tiled(whole, "onnxruntime", 1, 64) as tiled, pytest.raises(FrameError, match="at least 4 x 4"):
        tiled(picture(3, 100))
    beside(whole, "tile").unlink()
    with pytest.raises(UsageError, match=r"m\.tile\.onnx' does not exist.*--tiled"):
        load_tiled(whole)
    save_part(beside(whole, "tile"), "tile", "elsewhere.onnx")
    with pytest.raises(ModelFileError, match="elsewhere"):
        load_tiled(whole)
    save_part(tmp_path / "elsewhere.onnx", "whole")
    with pytest.raises(ModelFileError, match="holds the 'whole' part"):
        load_tiled(whole)


def _shipped(name: str) -> Path:
    model = shipped()[name]
    if "tile" not in model.companions:
        pytest.skip(f"'{name}' does not ship in its tiled form")
    return model.path


def _scene(height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    smooth = 120 + 60 * np.sin(columns / 97) + 40 * np.cos(rows / 61)
    grain = np.random.default_rng(3).normal(0, 12, (height, width, 3)).astype(np.float32)
    streaks = 70 * ((columns + 0.3 * rows) % 37 < 2)
    return np.clip(smooth[..., None] + grain + streaks[..., None], 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["nano", "edge"])
def test_shipped_models(name: str) -> None:
    levels, rain = compare(_shipped(name), _scene(333, 415), 320)
    assert levels <= 1
    assert rain < 0.01


@pytest.mark.full
@pytest.mark.parametrize("size", [(2160, 3840), (2161, 3847)])
@pytest.mark.parametrize("name", ["nano", "edge"])
def test_shipped_models_at_4k(name: str, size: tuple[int, int]) -> None:
    assert compare(_shipped(name), _scene(*size), 1024, "auto")[0] <= 1
