"""The camera's contract inside the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_network import PlainNetwork, SmallNetwork, reference, run_model

from derain.errors import UsageError
from derain.export.contract import Contract
from derain.export.exporter import Exported
from derain.export.graph import CameraGraph
from derain.export.nv12 import nv12_to_rgb
from derain.export.pictures import generated_picture, to_nv12

Exports = Callable[..., Exported]
SIZES = [(1, 1), (1, 50), (5, 7), (16, 16), (33, 47), (64, 100)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_size_equals_padding_and_cropping_by_hand(
    exports: Exports, network: SmallNetwork, height: int, width: int
) -> None:
    frame = generated_picture(1, height=128, width=128)[:height, :width]
    derained, attention = run_model(exports(), frame[None].copy())
    expected, expected_attention = reference(network, frame)
    assert derained.shape == (1, height, width, 3)
    assert derained.dtype == np.uint8
    assert np.abs(derained[0].astype(int) - expected).max() <= 1
    assert (derained[0] != expected).mean() <= 0.001 or height * width < 400
    assert attention.dtype == np.float32
    np.testing.assert_allclose(attention[0], expected_attention, atol=1e-5)


def test_the_network_changes_the_frame(exports: Exports) -> None:
    """Or the comparisons above would hold for a graph that returns its input."""
    frame = generated_picture(1, height=64, width=64)
    assert np.abs(run_model(exports(), frame[None])[0].astype(int) - frame).mean() > 0.5


def test_a_batch_equals_its_frames(exports: Exports) -> None:
    frames = np.stack([generated_picture(seed, height=40, width=56) for seed in (1, 2)])
    together = run_model(exports(), frames)
    for index in range(2):
        alone = run_model(exports(), frames[index : index + 1])
        assert np.abs(together[0][index].astype(int) - alone[0][0]).max() <= 1
        np.testing.assert_allclose(together[1][index], alone[1][0], atol=1e-5)


def test_rgb_is_bgr_reversed(exports: Exports) -> None:
    frame = generated_picture(2, height=37, width=50)[None]
    bgr = run_model(exports(), frame)[0]
    rgb = run_model(exports(frames="rgb"), np.ascontiguousarray(frame[..., ::-1]))[0]
    assert np.abs(rgb[..., ::-1].astype(int) - bgr).max() <= 1


def test_float_rounds_to_the_same_levels(exports: Exports) -> None:
    frame = generated_picture(2, height=37, width=50)[None]
    planes = np.ascontiguousarray(frame[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32) / 255
    found, attention = run_model(exports(frames="float"), planes)
    levels = np.rint(found * 255).astype(int).transpose(0, 2, 3, 1)[..., ::-1]
    assert found.dtype == np.float32
    assert attention.shape == (1, 37, 50)
    assert np.abs(levels - run_model(exports(), frame)[0]).max() <= 1


def test_levels_round_half_to_even() -> None:
    graph = CameraGraph(PlainNetwork().eval(), Contract("rgb"))
    halves = torch.tensor([0.5, 1.5, 2.5, 254.5]) / 255
    found = graph._from_rgb(halves.expand(1, 3, 1, 4))
    assert found[0, 0, :, 0].tolist() == [0, 2, 2, 254]


def test_fixed_size_folds_padding_away(exports: Exports, network: SmallNetwork) -> None:
    fitting, odd = exports(size=(1, 48, 64)), exports(size=(1, 45, 62))
    operators = {node.op_type for node in fitting.model.graph.node}
    assert not operators & {"Pad", "Shape", "Mod", "Range", "If"}
    assert "Pad" in {node.op_type for node in odd.model.graph.node}
    for exported, height, width in ((fitting, 48, 64), (odd, 45, 62)):
        frame = generated_picture(3, height=height, width=width)
        assert exported.card.profile.fixed
        assert np.abs(run_model(exported, frame[None])[0][0].astype(int) - reference(network, frame)[0]).max() <= 1


@pytest.mark.parametrize("encoding", ["bt601-limited", "bt601-full", "bt709-limited", "bt709-full"])
def test_nv12_primary_colours(encoding: str) -> None:
    """Against the standards' own anchors: black, white, and red's luma, which is its weight Kr."""
    matrix, _, colour_range = encoding.partition("-")
    contract = Contract("nv12", matrix, colour_range)  # type: ignore[arg-type]
    colours = np.array([[0, 0, 0], [255, 255, 255], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)
    frames = np.broadcast_to(colours[:, None, None, :], (5, 2, 2, 3))
    y, uv = to_nv12(frames, contract)
    low, high = (16, 235) if colour_range == "limited" else (0, 255)
    assert (y[0, 0, 0], y[1, 0, 0]) == (low, high)
    assert y[2, 0, 0] == round({"bt601": 0.299, "bt709": 0.2126}[matrix] * (high - low) + low)
    rgb = nv12_to_rgb(torch.from_numpy(y), torch.from_numpy(uv), contract.matrix, contract.colour_range)
    np.testing.assert_allclose(rgb[:, :, 0, 0].numpy() * 255, colours[:, ::-1], atol=2.0)


def test_nv12_agrees_with_opencv_bt601_limited() -> None:
    import cv2

    picture = cv2.GaussianBlur(generated_picture(5, height=64, width=64), (0, 0), 3)
    planar = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
    y = planar[:64]
    u, v = planar[64:80].reshape(32, 32), planar[80:].reshape(32, 32)
    nv12 = np.concatenate([y, np.stack([u, v], -1).reshape(32, 64)])
    expected = cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12).astype(float)
    uv = torch.from_numpy(np.stack([u, v], -1)[None])
    found = nv12_to_rgb(torch.from_numpy(y[None].copy()), uv, "bt601", "limited")[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(found - expected).max() <= 2.0


def test_nv12_graph_takes_two_planes(exports: Exports) -> None:
    exported = exports(frames="nv12")
    frame = generated_picture(2, height=46, width=50)[None]
    y, uv = to_nv12(frame, Contract("nv12"))
    derained, attention = run_model(exported, y, uv)
    assert [port.name for port in exported.card.inputs] == ["y", "uv"]
    assert exported.card.yuv == "bt709-limited"
    assert derained.shape == (1, 46, 50, 3)
    assert attention.shape == (1, 46, 50)
    smooth = np.abs(derained.astype(float) - run_model(exports(), frame)[0]).mean()
    assert smooth < 6  # chroma at half resolution, otherwise the same picture


def test_attention_alone_equals_the_whole(exports: Exports) -> None:
    alone = exports(part="attention")
    frame = generated_picture(4, height=41, width=67)[None]
    whole = exports()
    np.testing.assert_allclose(run_model(alone, frame)[0], run_model(whole, frame)[1], atol=1e-5)
    assert [port.name for port in alone.card.outputs] == ["attention"]
    assert alone.card.cost.parameters < whole.card.cost.parameters / 2


def test_tiles_equal_the_whole_frame(exports: Exports, network: SmallNetwork) -> None:
    context, tile = exports(part="context"), exports(part="tile")
    frame = generated_picture(6, height=160, width=224)
    whole, rain = run_model(exports(), frame[None])
    vector = run_model(context, frame[None])[0]
    assert vector.shape == (1, 6)
    margin, side = 32, 64
    found, found_rain = np.zeros_like(frame), np.zeros(frame.shape[:2], np.float32)
    for top in range(0, 160, side):
        for left in range(0, 224, side):
            rows = slice(max(0, top - margin), min(160, top + side + margin))
            columns = slice(max(0, left - margin), min(224, left + side + margin))
            part, part_rain = run_model(tile, frame[None, rows, columns].copy(), vector)
            inner = np.s_[
                top - rows.start : top - rows.start + side, left - columns.start : left - columns.start + side
            ]
            target = np.s_[top : top + side, left : left + side]
            found[target] = part[0][inner][: 160 - top, : 224 - left]
            found_rain[target] = part_rain[0][inner][: 160 - top, : 224 - left]
    assert np.abs(found.astype(int) - whole[0]).max() <= 1
    np.testing.assert_allclose(found_rain, rain[0], atol=1e-5)
    other = run_model(tile, frame[None, :64, :64].copy(), vector + 0.5)[0]
    assert np.abs(other[0].astype(int) - whole[0, :64, :64]).max() > 1, "the context has no effect"


def test_parts_that_a_network_lacks(plain_network: PlainNetwork) -> None:
    with pytest.raises(UsageError, match="no whole-frame context"):
        CameraGraph(plain_network, Contract(), "tile")


def test_ports_are_those_of_the_graph(exports: Exports) -> None:
    cases: list[dict[str, Any]] = [{}, {"frames": "float"}, {"frames": "nv12"}, {"part": "tile"}, {"half": True}]
    for case in cases:
        exported = exports(**case)
        graph = exported.model.graph
        assert [port.name for port in exported.card.inputs] == [value.name for value in graph.input]
        assert [port.name for port in exported.card.outputs] == [value.name for value in graph.output]
        for port, value in zip(exported.card.inputs, graph.input, strict=True):
            sides = [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
            assert len(sides) == len(port.layout)
            assert sides[0] == "batch"
