"""Each tensor has the range that costs the picture least."""

from __future__ import annotations

from functools import partial

import onnx
from tiny_model import scene, tiny_card

from derain.calibration import gate
from derain.calibration.layers import Layers, tensors_of
from derain.calibration.mixed import mixed_ranges
from derain.calibration.qdq import quantize
from derain.calibration.ranges import Method, Ranges
from derain.calibration.session import Runner


def test_each_tensor_has_its_own(tiny: onnx.ModelProto, layers: Layers, ranges: Ranges) -> None:
    """Of two methods, each right for half of the tensors and far off for the others, the right halves are taken."""
    names = tensors_of(tiny, layers)
    first = {name: size if index % 2 else 20 * size for index, (name, size) in enumerate(ranges.largest.items())}
    second = {name: 20 * size if index % 2 else size for index, (name, size) in enumerate(ranges.largest.items())}
    tried: dict[Method, Ranges] = {"minmax": Ranges("minmax", first), "entropy": Ranges("entropy", second)}
    frames = [scene(seed)[0] for seed in range(2)]
    told: list[str] = []
    plain = Runner(tiny, tiny_card())
    checks = [gate.Check("", frame, None, plain(frame)) for frame in frames]
    drop = partial(gate.mean_drop, checks=checks, reference=10.0)
    found = mixed_ranges(tiny, layers, tried, "minmax", drop, tiny_card(), say=told.append)
    assert found.method == "mixed"
    assert list(found.largest) == names
    assert len(told) == len(names)
    for name in names:
        assert 0.69 * ranges.largest[name] <= found.largest[name] <= ranges.largest[name], name
    costs = [drop(Runner(quantize(tiny, layers, each), tiny_card())) for each in (found, *tried.values())]
    assert costs[0] < 0.5 * min(costs[1:])
