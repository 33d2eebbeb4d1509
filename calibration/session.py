"""Running a model that is still in memory, with exact INT8 arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from derain.card import ModelCard
from derain.errors import CalibrationError, FrameError, MissingDependencyError
from derain.runtime.backends.threads import default_threads
from derain.runtime.ports import Picture, PortBuffers, RainMap

if TYPE_CHECKING:
    import onnx

FLOAT8 = 17  # onnx.TensorProto.FLOAT8E4M3FN


def open_session(model: onnx.ModelProto, threads: int = 0, optimised: Path | None = None) -> Any:
    """An onnxruntime session on the CPU whose INT8 kernels do not saturate.

    On CPUs without VNNI the default kernels add pairs of products in 16 bits, and figures are far off. With
    ``session.x64quantprecision`` they are those of exact arithmetic, on every CPU. Biases stay the floats that they are
    in the file, as in TensorRT: onnxruntime 1.31 would round them to int32, which changed 24 % of a picture's values.
    FP8 is computed in float between its Q/DQ pairs: onnxruntime would fuse some into operators that know INT8 alone.

    Args:
        model: any model.
        threads: 0 takes the cores that this process may use; onnxruntime would take all there are.
        optimised: where to write the graph that is really run.

    Raises:
        CalibrationError: onnxruntime refuses the model.
        MissingDependencyError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", needed_for="derain calibrate", extra="export") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or default_threads()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if any(tensor.data_type == FLOAT8 for tensor in model.graph.initializer):
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["WeightBiasQuantization"],
        )
    except Exception as error:
        raise CalibrationError(f"ONNX Runtime refuses the model: {str(error)[:400]}") from error


class Runner:
    """Derains frames with a model in memory.

    Args:
        model: a whole deraining graph.
        card: of it, or of the float32 model that it was made from.
        threads: as for :func:`open_session`.
    """

    def __init__(self, model: onnx.ModelProto, card: ModelCard, threads: int = 0) -> None:
        self.session = open_session(model, threads)
        self.card = card

    def __call__(self, frame: Picture) -> Picture:
        """uint8 (H, W, 3) BGR to the derained frame, the same."""
        return self.derain(frame)[0]

    def derain(self, frame: Picture) -> tuple[Picture, RainMap]:
        """Also the rain map, float32 (H, W) in [0, 1]."""
        buffers = PortBuffers(self.card, self.card.name, *frame.shape[:2])
        clean = np.empty(frame.shape, np.uint8)
        rain = np.empty(frame.shape[:2], np.float32)
        inputs, outputs = buffers.bind(frame, clean, rain)
        names = [port.name for port in self.card.outputs]
        for name, array in zip(names, self.session.run(names, inputs), strict=True):
            outputs[name][...] = array
        buffers.finish(outputs, clean, rain)
        return clean, rain


def feed_of(card: ModelCard, frame: Picture) -> dict[str, NDArray[Any]]:
    """The graph's inputs for one frame: the arrays are its own."""
    buffers = PortBuffers(card, card.name, *frame.shape[:2])
    clean, rain = np.empty(frame.shape, np.uint8), np.empty(frame.shape[:2], np.float32)
    inputs, _ = buffers.bind(frame, clean, rain)
    return inputs


def require_size(card: ModelCard, height: int, width: int, what: str) -> None:
    """Refuse a frame that the model does not take.

    Raises:
        FrameError: smaller than the model's minimum, or not the one size it was exported for.
    """
    least = card.geometry.minimum
    if min(height, width) < least:
        raise FrameError(f"{what} has {width} x {height} pixels", expected=f"at least {least} x {least} for this model")
    if card.profile.fixed and (height, width) != card.profile.opt[1:]:
        _, rows, columns = card.profile.opt
        raise FrameError(
            f"{what} has {width} x {height} pixels",
            expected=f"{columns} x {rows}, the one size this model was exported for",
            fix="Resize the frames, or export a dynamic model",
        )
