"""Each tensor has the range that costs the picture least."""

from __future__ import annotations

import numpy as np
import onnx
from tiny_model import scene, tiny_card

from derain.calibration.layers import Layers, tensors_of
from derain.calibration.mixed import mixed_ranges, picture_before_rounding
from derain.calibration.qdq import quantize
from derain.calibration.ranges import Method, Ranges
from derain.calibration.session import Runner, feed_of


def test_the_picture_before_it_is_rounded(tiny: onnx.ModelProto) -> None:
    assert picture_before_rounding(tiny) == "scaled"


def test_each_tensor_has_its_own(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    """Of two methods, each right for half of the tensors and far off for the others, the right halves are taken."""
    names = tensors_of(tiny, layers)
    first = {name: size if index % 2 else 20 * size for index, (name, size) in enumerate(ranges.largest.items())}
    second = {name: 20 * size if index % 2 else size for index, (name, size) in enumerate(ranges.largest.items())}
    tried: dict[Method, Ranges] = {"minmax": Ranges("minmax", first), "entropy": Ranges("entropy", second)}
    frames = [scene(seed)[0] for seed in range(2)]
    told: list[str] = []
    found = mixed_ranges(tiny, layers, tried, [feed_of(tiny_card(), f) for f in frames], [10.0] * 2, say=told.append)
    assert found.method == "mixed"
    assert list(found.largest) == names
    assert len(told) == len(names)
    for name in names:
        assert 0.69 * ranges.largest[name] <= found.largest[name] <= ranges.largest[name], name
    plain = Runner(tiny, tiny_card())(frames[0]).astype(int)

    def error(used: Ranges) -> float:
        return float(np.square(Runner(quantize(tiny, layers, used), tiny_card())(frames[0]) - plain).mean())

    assert error(found) < 0.5 * min(error(each) for each in tried.values())
