"""Ranges of activations over calibration frames, by onnxruntime's calibrators, fed one frame at a time."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from derain.calibration.session import open_session
from derain.card import TrainedRanges
from derain.errors import CalibrationError

if TYPE_CHECKING:
    import onnx

Method = Literal["minmax", "entropy", "percentile-99.99", "percentile-99.999"]
METHODS: tuple[Method, ...] = get_args(Method)
# Besides: each tensor's by the method that suits it (mixed.py), or those of quantization-aware training.
Origin = Method | Literal["mixed", "trained"]
Feed = dict[str, NDArray[Any]]

_BINS = 256
_VALUES = 1 << 16
# The histogram calibrators hold every tensor of one frame: so many bytes at most, and more passes for more.
_HELD_BYTES = 256 << 20
_CHANNEL_PERCENTILE = 99.9


@dataclass(frozen=True)
class Ranges:
    """Symmetric ranges: tensor name to the largest magnitude that INT8 represents; ``scale`` is a 127th of it."""

    method: Origin
    largest: dict[str, float]

    def scale(self, tensor: str) -> float:
        return self.largest[tensor] / 127

    def as_onnxruntime(self, isolated: str) -> Any:
        """As onnxruntime's quantizer takes them; each also under its name with the suffix ``isolated``."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import TensorData, TensorsData

        data = {}
        for name, largest in self.largest.items():
            low, high = np.array(-largest, np.float32), np.array(largest, np.float32)
            for alias in (name, name + isolated):
                data[alias] = TensorData(lowest=low, highest=high)
        return TensorsData(CalibrationMethod.MinMax, data)


def collect(
    model: onnx.ModelProto,
    tensors: list[str],
    frames: Callable[[], Iterable[Feed]],
    method: Method,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Ranges:
    """Run the frames through the graph and find each tensor's range.

    Args:
        model: float32.
        tensors: activations of it.
        frames: gives the graph's inputs, one frame at a time; it is called once a pass.
        method: ``minmax``: the largest magnitude seen; ``entropy``: the threshold of least Kullback-Leibler divergence;
            ``percentile-P``: the magnitude that P % of values do not exceed.
        progress: called after each frame of each pass.

    Raises:
        CalibrationError: no frames, or a tensor that is not a number.
    """
    largest: dict[str, float] = {}
    first = next(iter(frames()), None)
    if first is None:
        raise CalibrationError("There are no frames to calibrate with")
    groups = [tensors] if method == "minmax" else _groups(model, tensors, first)
    with tempfile.TemporaryDirectory(prefix="derain-calibration-") as folder:
        for group in groups:
            for name, low, high in _collect_group(model, group, frames, method, Path(folder), progress):
                bound = max(abs(low), abs(high))
                if not np.isfinite(bound):
                    raise CalibrationError(f"Tensor '{name}' reaches {bound} on the calibration frames")
                # A tensor that is zero throughout still needs a scale that is a positive number.
                largest[name] = bound or 1e-6
    return Ranges(method, {name: largest[name] for name in tensors})


def channel_magnitudes(
    model: onnx.ModelProto, tensors: list[str], frames: Callable[[], Iterable[Feed]]
) -> dict[str, NDArray[np.float64]]:
    """How large each channel is: the magnitude that 99.9 % of a frame's values do not exceed, the most of any frame.

    Args:
        model: float32.
        tensors: activations of it, (1, C, H, W).
        frames: gives the graph's inputs, one frame at a time; it is called once a pass.

    Returns:
        Tensor to float64 (C).
    """
    import onnx

    found: dict[str, NDArray[np.float64]] = {}
    first = next(iter(frames()), None)
    if first is None:
        raise CalibrationError("There are no frames to calibrate with")
    for group in _groups(model, tensors, first):
        seen = onnx.ModelProto()
        seen.CopyFrom(model)
        seen.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in group)
        session = open_session(seen)
        for feed in frames():
            for name, values in zip(group, session.run(group, feed), strict=True):
                flat = np.abs(values[0]).reshape(values.shape[1], -1)
                flat = flat[:, :: 1 + flat.size // _VALUES]
                size = np.percentile(flat, _CHANNEL_PERCENTILE, axis=1).astype(np.float64)
                found[name] = np.maximum(found.get(name, size), size)
    return found


def trained_ranges(model: onnx.ModelProto, record: TrainedRanges) -> Ranges:
    """The ranges that quantization-aware training held a network to, by tensor of its float32 graph.

    Raises:
        CalibrationError: the graph lacks a layer that was trained.
    """
    nodes = {node.name: node for node in model.graph.node}
    largest: dict[str, float] = {}
    for layer, magnitudes in record.inputs.items():
        if layer not in nodes:
            raise CalibrationError(
                f"The model was trained with a range for '{layer}', which its graph does not have",
                fix="Export the checkpoint again with the derain that calibrates it",
            )
        largest.update(zip(nodes[layer].input, magnitudes, strict=False))  # a convolution's weights need no range
    return Ranges("trained", largest)


def _collect_group(
    model: onnx.ModelProto,
    tensors: list[str],
    frames: Callable[[], Iterable[Feed]],
    method: Method,
    folder: Path,
    progress: Callable[[], None],
) -> Iterator[tuple[str, float, float]]:
    import onnx

    plain, augmented = folder / "plain.onnx", folder / "augmented.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), str(plain))
    calibrator = _calibrator(method, set(tensors), plain, augmented)
    # onnxruntime's calibrators print.
    with contextlib.redirect_stdout(io.StringIO()):
        for feed in frames():
            calibrator.collect_data(_OneFrame(feed))
            progress()
        found = calibrator.compute_data()
    for name in tensors:
        low, high = found[name].range_value
        yield name, float(np.min(low)), float(np.max(high))


class _OneFrame:
    """onnxruntime's data reader of one frame."""

    def __init__(self, feed: Feed) -> None:
        self._feed: Feed | None = feed

    def get_next(self) -> Feed | None:
        feed, self._feed = self._feed, None
        return feed


def _calibrator(method: Method, tensors: set[str], plain: Path, augmented: Path) -> Any:
    from onnxruntime.quantization import calibrate

    kind, _, percentile = method.partition("-")
    known: dict[str, dict[str, Any]] = {
        "minmax": {},
        "entropy": {"num_bins": _BINS, "num_quantized_bins": 128, "symmetric": True},
        "percentile": {"percentile": float(percentile or 0), "symmetric": True},
    }
    base = {
        "minmax": calibrate.MinMaxCalibrater,
        "entropy": calibrate.EntropyCalibrater,
        "percentile": calibrate.PercentileCalibrater,
    }[kind]

    class Chosen(base):  # type: ignore[misc, valid-type]
        """Looks at the tensors that are asked for, not at all of some operators."""

        def select_tensors_to_calibrate(self, model: onnx.ModelProto) -> tuple[set[str], dict[str, Any]]:
            values = (*model.graph.value_info, *model.graph.output, *model.graph.input)
            return tensors, {value.name: value for value in values}

    calibrator = Chosen(plain, None, str(augmented), **known[kind])
    calibrator.augment_graph()
    calibrator.create_inference_session()
    calibrator.infer_session = _Thinned(calibrator.infer_session, tensors if method != "minmax" else set())
    return calibrator


class _Thinned:
    """A session that gives at most ``_VALUES`` values of a tensor, evenly spread: enough for a histogram of a frame."""

    def __init__(self, session: Any, tensors: set[str]) -> None:
        self._session = session
        self._thin = [output.name in tensors for output in session.get_outputs()]
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs

    def run(self, names: None, feed: Feed) -> list[NDArray[Any]]:
        arrays = zip(self._session.run(names, feed), self._thin, strict=True)
        return [array.reshape(-1)[:: 1 + array.size // _VALUES] if thin else array for array, thin in arrays]


def _groups(model: onnx.ModelProto, tensors: list[str], feed: Feed) -> list[list[str]]:
    """Tensors in groups that fill at most ``_HELD_BYTES`` for one frame."""
    import onnx

    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    del sized.graph.output[:]
    for name in tensors:
        sized.graph.node.append(onnx.helper.make_node("Size", [name], [f"{name}_size"]))
        sized.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}_size", onnx.TensorProto.INT64, []))
    groups: list[list[str]] = []
    held = 0
    for name, size in zip(tensors, open_session(sized).run(None, feed), strict=True):
        if not groups or held + 4 * int(size) > _HELD_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += 4 * int(size)
    return groups
