"""Channels made alike: the float picture stays, INT8 loses less, and what cannot be scaled is left alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from tiny_model import scene, tiny_card

from derain.calibration.equalize import Equalizing, equalize, find_equalizing, find_groups, trained_equalizing
from derain.calibration.layers import Layers, find_layers, tensors_of
from derain.calibration.qdq import quantize
from derain.calibration.ranges import Ranges, channel_magnitudes, collect
from derain.calibration.session import Runner, feed_of
from derain.card import TrainedRanges
from derain.errors import CalibrationError
from derain.metrics import psnr

READERS = ("stage/Conv", "stage/Conv.2", "attention/Conv", "tail/Conv")


def _feeds() -> list[dict[str, np.ndarray]]:  # type: ignore[type-arg]
    return [feed_of(tiny_card(), scene(seed)[0]) for seed in range(3)]


def _found(model: onnx.ModelProto) -> Equalizing:
    tensors = tensors_of(model, find_layers(model, "it"))
    return find_equalizing(model, tensors, partial(channel_magnitudes, frames=_feeds))


@pytest.fixture(scope="module")
def uneven(tiny: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with channels up to 64 times as large as others."""
    (group,) = find_groups(tiny)
    return equalize(tiny, [(group, 2.0 ** np.linspace(-3, 3, group.channels))])


def test_a_residual_stream_is_one_group(tiny: onnx.ModelProto) -> None:
    (group,) = find_groups(tiny)
    assert group.writers == ("stem/Conv", "stage/Conv", "stage/Conv.2")
    assert set(group.readers) == set(READERS)
    assert {"h0", "act1", "h1", "h2"} <= set(group.tensors)
    assert not {"picture", "affine", "cells", "rain_cells"} & set(group.tensors)


@pytest.mark.parametrize("operator", ["Sigmoid", "DepthToSpace"])
def test_what_is_not_linear_channel_by_channel_is_left_alone(tiny: onnx.ModelProto, operator: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny)
    node = next(node for node in model.graph.node if node.name == "stage/LeakyRelu")
    node.op_type = operator
    assert find_groups(model) == []


def test_the_float_picture_stays(tiny: onnx.ModelProto) -> None:
    changed = _found(tiny).apply(tiny)
    names = {tensor.name for tensor in changed.graph.initializer}
    assert {name for name in names if name.startswith("stage.weight")} != {"stage.weight"}  # recurrences share no more
    for seed in (11, 12):
        frame = scene(seed)[0]
        found = Runner(changed, tiny_card())(frame).astype(int)
        assert np.abs(found - Runner(tiny, tiny_card())(frame)).max() <= 1


def test_channels_become_alike(uneven: onnx.ModelProto) -> None:
    before = channel_magnitudes(uneven, ["h1"], _feeds)["h1"]
    after = channel_magnitudes(_found(uneven).apply(uneven), ["h1"], _feeds)["h1"]
    assert after.max() / after.min() < 0.2 * before.max() / before.min()


def test_int8_loses_less(uneven: onnx.ModelProto) -> None:
    layers = find_layers(uneven, "uneven")
    frame = scene(11)[0]
    wanted = Runner(uneven, tiny_card())(frame)

    def closeness(model: onnx.ModelProto) -> float:
        ranges = collect(model, tensors_of(model, layers), _feeds, "minmax")
        return psnr(Runner(quantize(model, layers, ranges), tiny_card())(frame), wanted, "rgb")

    assert closeness(_found(uneven).apply(uneven)) > closeness(uneven) + 6


def test_the_cache_has_ranges_of_the_original(uneven: onnx.ModelProto) -> None:
    """TensorRT applies it to the float32 file, whose channels are as they were."""
    found = _found(uneven)
    largest = collect(found.apply(uneven), ["picture", "h1"], _feeds, "minmax")
    original = collect(uneven, ["picture", "h1"], _feeds, "minmax").largest
    undone = found.undo(largest)
    assert undone.largest["picture"] == largest.largest["picture"]
    assert undone.largest["h1"] >= 0.999 * original["h1"]
    assert undone.largest["h1"] == pytest.approx(largest.largest["h1"] * max(found.changes[0][1]))


def test_training_hands_on_what_it_was_given(tiny: onnx.ModelProto, layers: Layers) -> None:
    found = _found(tiny)
    entries = found.record(found.apply(tiny), layers)
    assert {*READERS, "stage/Add", "stage/Add.2"} == set(entries[0].inputs)
    again = trained_equalizing(tiny, TrainedRanges(source="'tiny'", inputs={}, equalized=entries))
    assert again.apply(tiny).SerializeToString() == found.apply(tiny).SerializeToString()
    other = [entries[0].model_copy(update={"inputs": ["elsewhere/Conv"]})]
    with pytest.raises(CalibrationError, match="elsewhere/Conv"):
        trained_equalizing(tiny, TrainedRanges(source="'tiny'", inputs={}, equalized=other))


def test_nothing_to_do() -> None:
    ranges = Ranges("minmax", {"x": 1.0})
    assert Equalizing().undo(ranges) == ranges
