"""The graph that sums up on cells gives what the plain graph gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from derain.calibration.layers import find_layers
from derain.export.cells import CellCameraGraph, FogToCells, SimilarityByPixel, camera_graph, pool
from derain.export.contract import Contract
from derain.export.describe import _context_reading
from derain.export.graph import CameraGraph
from derain.export.half import half_nodes
from derain.export.pictures import generated_picture
from derain.train.networks.context import GlobalSimilarity
from derain.train.networks.edge import EdgeConfig, EdgeDerainer

NANO = EdgeConfig(
    extractor_width=8, extractor_stages=1, extractor_stage="residual", generator_width=8, generator_stages=1,
    stem_kernel=6, trunk="shared", fog_width=4,
)  # fmt: skip
EDGE = EdgeConfig(extractor_width=8, extractor_stages=2, generator_width=16, stem_kernel=12, fog_width=4)


def network_of(config: EdgeConfig) -> EdgeDerainer:
    """With weights that make gain, offset, streaks and attention all vary over the picture."""
    torch.manual_seed(3)
    network = EdgeDerainer(config).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return network


def frames(count: int, height: int, width: int) -> torch.Tensor:
    pictures = [generated_picture(seed, height=96, width=128)[:height, :width] for seed in range(count)]
    return torch.from_numpy(np.stack(pictures))


@pytest.mark.parametrize("config", [NANO, EDGE], ids=["nano", "edge"])
@pytest.mark.parametrize("order", ["bgr", "rgb"])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 64, 96), (2, 33, 50), (1, 1, 3)])
def test_equals_the_plain_graph(config: EdgeConfig, order: Any, count: int, height: int, width: int) -> None:
    network, rainy = network_of(config), frames(count, height, width)
    graph = camera_graph(network, Contract(order), "whole").eval()
    assert isinstance(graph, CellCameraGraph)
    with torch.no_grad():
        found, rain = graph(rainy)
        expected, expected_rain = CameraGraph(network, Contract(order)).eval()(rainy)
    apart = (found.int() - expected.int()).abs()
    assert found.dtype == torch.uint8
    assert found.shape == rainy.shape
    assert apart.max() <= 1
    assert (apart > 0).float().mean() <= 0.002
    torch.testing.assert_close(rain, expected_rain, atol=1e-5, rtol=0)
    if height > 1:
        assert (found.int() - rainy.int()).abs().float().mean() > 2
        assert rain.std() > 0.01


def test_a_tile_takes_the_context_of_the_plain_companion() -> None:
    network, rainy = network_of(EDGE), frames(1, 64, 96)
    with torch.no_grad():
        (context,) = CameraGraph(network, Contract(), "context").eval()(rainy)
        found, _ = camera_graph(network, Contract(), "tile").eval()(rainy, context)
        expected, _ = CameraGraph(network, Contract(), "tile").eval()(rainy, context)
    assert (found.int() - expected.int()).abs().max() <= 1


def test_the_network_itself_is_left_as_it_was() -> None:
    network = network_of(NANO)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    camera_graph(network, Contract(), "whole")
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(weight, before[name], atol=0, rtol=0)


@pytest.mark.parametrize(("frames", "part"), [("float", "whole"), ("nv12", "whole"), ("bgr", "attention")])
def test_other_frames_and_parts_take_the_plain_graph(frames: Any, part: Any) -> None:
    assert type(camera_graph(network_of(NANO), Contract(frames), part)) is CameraGraph


def test_gain_and_offset_are_bilinear_on_pixels() -> None:
    maps = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(1))
    wanted = F.interpolate(maps, scale_factor=16.0, mode="bilinear", align_corners=False)
    gain, offset = FogToCells((2, 1, 0))(maps)
    for cells, expected in ((gain, 1 + wanted[:, :3]), (offset, 255 * wanted[:, 3:])):
        pixels = cells.unflatten(1, (4, 4, 3)).permute(0, 3, 4, 1, 5, 2).reshape(2, 3, 48, 80)
        torch.testing.assert_close(pixels.flip(1), expected, atol=2e-4, rtol=1e-5)


def test_pool_gives_mean_maximum_and_minimum() -> None:
    frame = torch.rand(2, 12, 20, 3, generator=torch.Generator().manual_seed(1))
    planes = frame.permute(0, 3, 1, 2)
    expected = torch.cat([F.avg_pool2d(planes, 4), F.max_pool2d(planes, 4), -F.max_pool2d(-planes, 4)], dim=1)
    cells = frame.reshape(2, 3, 4, 5, 12).permute(0, 1, 3, 2, 4).reshape(2, 3, 5, 48).permute(0, 3, 1, 2)
    torch.testing.assert_close(pool(cells), expected)


def test_the_picture_is_scaled_in_float32_whatever_the_layers_compute_in() -> None:
    """Gain in 8 or 11 bits would cost levels of the picture itself."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], "generator/tail/Conv"),
        helper.make_node("Conv", ["h", "w"], ["y"], "fog/gain/Conv"),
        helper.make_node("Conv", ["y", "w"], ["z"], "generator/last/Conv"),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "xz"]
    weight = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    model = onnx.helper.make_model(helper.make_graph(nodes, "fog", value[:1], value[1:], [weight]))
    assert "fog/gain/Conv" not in half_nodes(model)
    assert "generator/tail/Conv" in half_nodes(model)
    layers = find_layers(model, "fog.onnx")
    assert layers.convolutions == ("generator/tail/Conv", "generator/last/Conv")
    assert "gain" in layers.others["fog/gain/Conv"]


def test_similarity_by_pixel_is_the_networks_own() -> None:
    torch.manual_seed(4)
    plain = GlobalSimilarity(12)
    torch.nn.init.normal_(plain.output.weight)
    h, matrix = torch.randn(2, 12, 5, 7), torch.randn(2, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(SimilarityByPixel(plain)(h, matrix), plain(h, matrix), atol=1e-4, rtol=1e-4)
    graph = camera_graph(network_of(NANO), Contract(), "whole")
    assert [type(m).__name__ for m in graph.modules() if "Similarity" in type(m).__name__] == ["SimilarityByPixel"]


def test_the_companions_card_says_what_it_reads() -> None:
    network = network_of(NANO)
    reading = _context_reading(CameraGraph(network, Contract(), "context"))
    assert reading is not None
    assert (reading.cell, reading.places) == (4, 128)
    assert _context_reading(CameraGraph(network, Contract(), "tile")) is None
