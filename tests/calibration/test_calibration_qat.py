"""Fake quantization in PyTorch is the arithmetic of the Q/DQ file; a network trained for INT8 keeps its ranges."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from test_calibration_tensorrt import EDGE_SIZES
from tiny_model import CONVOLUTIONS, scene, write_pairs
from typer.testing import CliRunner

from derain.calibration.describe_model import set_card
from derain.calibration.equalize import Equalizing, Group, find_groups
from derain.calibration.layers import find_layers, tensors_of
from derain.calibration.qdq import quantize, quantized_convolutions
from derain.calibration.ranges import Ranges, collect
from derain.calibration.session import Runner, feed_of
from derain.card import Calibration, Precision, TrainedRanges, read_card
from derain.cli import app
from derain.export.exporter import ExportOptions, build
from derain.export.sizes import make_profile
from derain.train.evaluation import run_module
from derain.train.networks.edge import EdgeConfig, EdgeDerainer
from derain.train.networks.reparam import BranchedConv, fold_branches
from derain.train.qat import fake_quantize
from derain.train.qat_setup import read_ranges

CLI = CliRunner()
Frame = NDArray[np.uint8]


def _spread(network: torch.nn.Module) -> None:
    """Layers that start at zero would have no range."""
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.01)


def _snap(network: torch.nn.Module) -> None:
    """Weights whose INT8 scale is 2^-10 in every channel, and biases on that grid: then every sum is exact."""
    generator = torch.Generator().manual_seed(2)
    step, first = 2.0**-10, (slice(None), 0, 0, 0)
    branched = [module for module in network.modules() if isinstance(module, BranchedConv)]
    inside = {id(part) for module in branched for part in module.modules()}
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                most = 40 if id(layer) in inside else 120
                layer.weight.copy_(torch.randint(-most, most + 1, layer.weight.shape, generator=generator) * step)
                if id(layer) not in inside:
                    layer.weight[first] = 127 * step
                if layer.bias is not None:
                    layer.bias.copy_(torch.randint(-20, 21, layer.bias.shape, generator=generator) * step)
        for module in branched:
            module.main.weight[first] += 127 * step - module.kernel_and_bias()[0][first]


def _powers(group: Group) -> NDArray[np.float64]:
    """Factors that keep every sum exact, the largest of the channel that holds each kernel's largest weight."""
    return np.where(np.arange(group.channels) == 0, 2.0, np.where(np.arange(group.channels) % 2, 1.0, 0.5))


def _int8_file(network: Any, frames: list[Frame], kept: frozenset[str], path: Path) -> None:
    """Export a copy and put Q/DQ into it, at scales that are powers of two, so that sums are exact.

    What is kept stays in float32, as float16 sums depend on the machine.
    """
    folded = copy.deepcopy(network)
    fold_branches(folded)
    exported = build(folded, None, ExportOptions(make_profile()))
    model, card = exported.model, exported.card
    layers = find_layers(model, card.name)
    feeds = lambda: (feed_of(card, frame) for frame in frames)  # noqa: E731
    equalizing = Equalizing(tuple((group, _powers(group)) for group in find_groups(model)))
    assert equalizing.changes
    model = equalizing.apply(model)
    ranges = collect(model, tensors_of(model, layers), feeds, "minmax")
    powers = {name: 127 * 2.0 ** np.ceil(np.log2(most / 127)) for name, most in ranges.largest.items()}
    quantized = quantize(model, layers, Ranges("minmax", powers), kept, half=False)
    record = Calibration(
        selection="", frames=[], max_drop=0, checked=1, paired=0, drop=0, worst_drop=0, worst_frame="", mean_shift=0,
        banding=0, clipped_low=0, clipped_high=0, equalized=equalizing.record(model, layers),
    )  # fmt: skip
    set_card(quantized, card.model_copy(update={"precision": Precision(kind="int8"), "calibration": record}))
    path.write_bytes(quantized.SerializeToString())


def _expect_equal(network: Any, path: Path, frame: Frame) -> None:
    """The file gives the picture of the fake-quantized network, and not that of the plain one."""
    found = Runner(onnx.load(str(path)), read_card(path))(frame).astype(np.int64)
    plain = run_module(network, frame)[0].astype(np.int64)
    fake_quantize(network, read_ranges(path))
    difference = np.abs(run_module(network, frame)[0] - found)
    assert np.abs(plain - found).mean() > 0.1
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.001


def test_a_small_network_equals_its_int8_file(tmp_path: Path) -> None:
    """Recurrent gated and residual stages, folded branches, a kept recurrence, tensors that float layers read too,
    channels that are divided before they are rounded.

    With scales that are powers of two no sum rounds, so that no difference can be laid to the order of additions.
    """
    torch.manual_seed(1)
    config = EdgeConfig(
        extractor_width=8, extractor_stages=2, generator_width=8, generator_stages=2, fog_width=4, reparam="repvgg"
    )
    network = EdgeDerainer(config).eval()
    _spread(network)
    _snap(network)
    frames = [scene(seed)[0] for seed in range(2)]
    path = tmp_path / "small.int8.onnx"
    _int8_file(network, frames, frozenset({"generator/stage/first/Conv.2"}), path)
    ranges = read_ranges(path)
    assert ranges.inputs["extractor/stage/gate/Conv"] != ranges.inputs["extractor/stage/gate/Conv.2"]
    assert ranges.outputs
    assert "generator/stage/first/Conv.2" not in ranges.inputs
    assert any(entry.outputs for entry in ranges.equalized)
    _expect_equal(network, path, frames[0])


@pytest.mark.full
@pytest.mark.parametrize("recipe", EDGE_SIZES)
def test_every_system_at_edge_size_equals_its_int8_file(recipe: str, tmp_path: Path) -> None:
    """Attention over channels and products between recurrences are rounded too.

    With scales as they come an untrained network tells nothing: sums that round otherwise flip levels, and a flip in an
    early layer is a quarter of what INT8 costs at the end.
    """
    from derain.train.recipe import parse_recipe, read_recipe_text
    from derain.train.systems import find_system

    parsed = parse_recipe(read_recipe_text(recipe), recipe)
    torch.manual_seed(0)
    network: Any = find_system(parsed.system)(parsed.system_config()).derainer.eval()
    _spread(network)
    _snap(network)
    frames = [scene(seed, 96, 128)[0] for seed in range(2)]
    path = tmp_path / "int8.onnx"
    _int8_file(network, frames, frozenset(), path)
    _expect_equal(network, path, frames[1])


@pytest.fixture
def trained_file(tiny: onnx.ModelProto, tiny_file: Path, ranges: Ranges, tmp_path: Path) -> Path:
    """As if exported after training with ranges a tenth above the usual, the tail in float16."""
    inputs = {
        node.name: [1.1 * ranges.largest[name] for name in node.input if name in ranges.largest]
        for node in tiny.graph.node
        if node.name in CONVOLUTIONS[:-1] or node.name.startswith("stage/Add")
    }
    copied = onnx.ModelProto()
    copied.CopyFrom(tiny)
    record = TrainedRanges(source="'tiny'", inputs=inputs, float16=["tail/Conv"])
    set_card(copied, read_card(tiny_file).model_copy(update={"trained": record}))
    path = tmp_path / "trained.onnx"
    path.write_bytes(copied.SerializeToString())
    return path


def test_trained_ranges_are_kept(trained_file: Path, tiny_file: Path, ranges: Ranges, tmp_path: Path) -> None:
    pairs, output = write_pairs(tmp_path / "data", 6), tmp_path / "out.onnx"
    arguments = ["calibrate", str(trained_file), "--against", str(tiny_file), "--frames", str(pairs)]
    result = CLI.invoke(app, [*arguments, "-o", str(output), "--max-drop", "9"])
    assert result.exit_code == 0, result.output
    model, card = onnx.load(str(output)), read_card(output)
    assert quantized_convolutions(model) == CONVOLUTIONS[:-1]
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {n.input[0]: float(scales[n.input[1]]) for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert {"picture", "h0", "h1"} <= set(found) <= set(ranges.largest)
    for name, scale in found.items():
        assert scale == pytest.approx(1.1 * ranges.scale(name), rel=1e-6)
    assert card.trained is None
    assert card.calibration is not None
    assert (card.calibration.ranges, card.calibration.frames) == ("trained", [])
    assert "tail/Conv" in card.calibration.float16
    assert "'tiny'" in str(card.precision.calibration)


def test_a_trained_file_is_not_judged_by_itself(trained_file: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "data", 2)
    result = CLI.invoke(app, ["calibrate", str(trained_file), "--frames", str(pairs)])
    assert result.exit_code == 2
    assert "--against" in result.output


def test_ranges_of_another_graph_are_refused(trained_file: Path, tiny_file: Path, tmp_path: Path) -> None:
    model = onnx.load(str(trained_file))
    record = TrainedRanges(source="'other'", inputs={"elsewhere/Conv": [1.0]})
    set_card(model, read_card(trained_file).model_copy(update={"trained": record}))
    trained_file.write_bytes(model.SerializeToString())
    pairs = write_pairs(tmp_path / "data", 6)
    arguments = ["calibrate", str(trained_file), "--against", str(tiny_file), "--frames", str(pairs)]
    result = CLI.invoke(app, arguments)
    assert result.exit_code == 1
    assert "elsewhere/Conv" in result.output


def test_only_an_int8_file_has_ranges(tiny_file: Path) -> None:
    from derain.errors import ModelFileError

    with pytest.raises(ModelFileError, match="precision float32"):
        read_ranges(tiny_file)
