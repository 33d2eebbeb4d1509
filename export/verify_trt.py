"""Ask NVIDIA's parser and builder, without a GPU: TensorRT-RTX builds for compute capabilities it is told.

"TensorRT-RTX accepts it" means that NVIDIA's parser and optimiser accept the file. It does not mean that it was built
on an Orin or a Thor: TensorRT-RTX knows neither, and cannot run an engine without a GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derain.card import ModelCard, Port, read_card
from derain.errors import ExportError, MissingDependencyError, UsageError
from derain.export.scope import FLOAT_SCOPES

if TYPE_CHECKING:
    import onnx

CAPABILITIES = ("SM75", "SM86", "SM89", "SM120")
_WANTED = {"float32": "Float", "float16": "Half"}
_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: .*?, StreamId: \d+.*?Metadata: ?(?P<metadata>.*)$",
    re.MULTILINE,
)
_TENSOR = re.compile(r"Dimensions: \[(?P<shape>[-\d,]*)\].*?Datatype: (?P<type>\w+)")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_POINTWISE = "kgen"  # the builder's name for kernels it generates around convolutions
_NO_TURING_PRODUCT = "FP32 GEMM is not supported"
_BUG = "Report this as a bug of derain"
# Without a driver the parser's clean-up logs this after a refusal; the refusal is the message before it.
_NO_DRIVER = re.compile(r"CUDA.*\b35\b|error code 35|Cuda failure: 35", re.IGNORECASE)


class TuringError(ExportError):
    """TensorRT-RTX has no float32 matrix product for SM75."""


@dataclass(frozen=True)
class Tensor:
    """A tensor as the builder chose it. ``shape`` has -1 where it varies; ``type`` is Float, Half, Int8, UInt8, ..."""

    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True)
class EngineLayer:
    """One kernel of the engine and the ONNX nodes that were fused into it."""

    name: str
    kind: str
    onnx_layers: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def weight_type(self) -> str | None:
        """Type of the weights, the largest constant of four dimensions; None for a kernel that only works pointwise.

        Scales and biases of what is fused behind a convolution also have four dimensions, [1, C, 1, 1].
        """
        if self.kind == _POINTWISE:
            return None
        weights = [tensor for tensor in self.constants if len(tensor.shape) == 4]
        return max(weights, key=_values).type if weights else None


def _values(tensor: Tensor) -> int:
    count = 1
    for side in tensor.shape:
        count *= abs(side)
    return count


@dataclass(frozen=True)
class BuildReport:
    """What the builder made of a file for one compute capability."""

    capability: str
    engine_bytes: int
    layers: list[EngineLayer]
    version: str

    def convolutions(self, names: list[str]) -> dict[str, str]:
        """The type each of the named ONNX convolutions computes in.

        It is that of the kernel's weights, provided an input of the kernel has it too: Int8 weights behind a Float
        input would be a convolution in float.

        Args:
            names: of Conv nodes in the ONNX file.

        Returns:
            Node name to ``Float``, ``Half``, ``Int8`` or ``unknown`` (the log does not tell).
        """
        found = {}
        for name in names:
            layers = [layer for layer in self.layers if name in layer.onnx_layers and layer.weight_type]
            kinds = {_computed(layer) for layer in layers}
            found[name] = kinds.pop() if len(kinds) == 1 else "unknown"
        return found


def _computed(layer: EngineLayer) -> str:
    weight = layer.weight_type or "unknown"
    kinds = [tensor.type for tensor in layer.inputs if len(tensor.shape) == 4]
    return weight if weight in kinds else (kinds[0] if kinds else "unknown")


def build_report(path: Path, capability: str = "SM86") -> BuildReport:
    """Parse and build a file written by derain, with the sizes of its card.

    Args:
        path: an ``.onnx`` file of any precision.
        capability: ``SM75``, ``SM86``, ``SM89`` or ``SM120`` (what the installed TensorRT-RTX knows).

    Raises:
        ExportError: the parser or builder refuses it; the message names the node.
        MissingDependencyError: tensorrt_rtx is not installed.
        UsageError: an unknown compute capability.
    """
    return build_bytes(path.read_bytes(), read_card(path), capability)


def build_bytes(model: bytes, card: ModelCard, capability: str) -> BuildReport:
    """As :func:`build_report`, for a file that was not written yet."""
    trt = _tensorrt()
    logger = _make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise _refusal(parser, logger.messages)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not card.profile.fixed:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            port = next(port for port in card.inputs if port.name == tensor.name)
            profile.set_shape(tensor.name, *_profile_shapes(port, tuple(tensor.shape), card))
        config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(require_capability(capability), 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        reason = _first_error(logger.messages)
        found = f"TensorRT-RTX parsed the graph but cannot build it for {capability}: {reason}"
        if _NO_TURING_PRODUCT in reason:
            raise TuringError(found, fix="Export with --fp16: its matrix products are in float16")
        raise ExportError(found, fix="The message names the layer; rewrite it, or export without --verify")
    text = "\n".join(message for _, message in logger.messages)
    return BuildReport(capability, engine.nbytes, read_layers(text), str(trt.__version__))


def require_capability(name: str) -> Any:
    """TensorRT-RTX's own value of a compute capability such as ``SM86``.

    Raises:
        MissingDependencyError: tensorrt_rtx is not installed.
        UsageError: it does not know that one.
    """
    trt = _tensorrt()
    known = getattr(trt.ComputeCapability, name, None)
    if known is None:
        raise UsageError(f"TensorRT-RTX {trt.__version__} knows no '{name}'", expected=", ".join(CAPABILITIES))
    return known


def read_layers(log: str) -> list[EngineLayer]:
    """The engine's layers from the builder's VERBOSE log, written with DETAILED profiling verbosity."""
    return [
        EngineLayer(
            match["name"],
            match["kind"],
            tuple(_ONNX_LAYER.findall(match["metadata"])),
            _tensors(match["inputs"]),
            _tensors(match["constants"]),
            _tensors(match["outputs"]),
        )
        for match in _LAYER.finditer(log)
    ]


def verify(model: onnx.ModelProto, card: ModelCard, capabilities: tuple[str, ...]) -> str:
    """Build for each compute capability and make sure that every convolution computes in the card's precision.

    Turing (SM75) has no float32 matrix product in TensorRT-RTX: a float32 graph with one is built for the others, and
    the statement says so.

    Returns:
        A statement for the card: what accepted it, with its version.

    Raises:
        ExportError: a refusal, or a convolution of another type.
    """
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    reports, refused = [], []
    for capability in capabilities:
        try:
            reports.append(build_bytes(model.SerializeToString(), card, capability))
        except TuringError as error:
            refused.append(capability)
            if len(refused) == len(capabilities):
                raise error
    wanted = _WANTED.get(card.precision.kind)
    untold: set[str] = set()
    for report in reports:
        for name, kind in report.convolutions(convolutions).items():
            if kind == "unknown":
                untold.add(name)
            if wanted and kind not in (wanted, "unknown") and not name.startswith(FLOAT_SCOPES):
                raise ExportError(
                    f"TensorRT-RTX computes '{name}' in {kind} for {report.capability}", expected=wanted, fix=_BUG
                )
    accepted = ", ".join(report.capability for report in reports)
    without = "".join(f"; {capability} only with --fp16" for capability in refused)
    # A newer TensorRT-RTX may write another log: what was not read in it is not claimed.
    types = f"; types of {len(untold)} of {len(convolutions)} convolutions unknown" if untold else ""
    return f"tensorrt_rtx {reports[0].version} (parser and builder, no GPU: {accepted}{without}{types})"


def _tensorrt() -> Any:
    try:
        import tensorrt_rtx as trt
    except ImportError as error:
        raise MissingDependencyError("tensorrt-rtx-cu13", needed_for="--verify tensorrt") from error
    return trt


def _make_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps every message: the layers with their types are in the VERBOSE ones."""

        def __init__(self) -> None:
            super().__init__()
            self.messages: list[tuple[int, str]] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append((int(severity), message))

    return Logger()


def _profile_shapes(port: Port, shape: tuple[int, ...], card: ModelCard) -> list[tuple[int, ...]]:
    """Min, opt and max shape of an input; channels and context keep their one size."""
    halve = 2 if port.channels == "UV" else 1
    found = []
    for batch, height, width in (card.profile.min, card.profile.opt, card.profile.max):
        sizes = {"N": batch, "H": height // halve, "W": width // halve}
        found.append(tuple(sizes.get(letter, side) for letter, side in zip(port.layout, shape, strict=True)))
    return found


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(tuple(int(side) for side in match["shape"].split(",") if side), match["type"])
        for match in _TENSOR.finditer(text)
    )


def _refusal(parser: Any, messages: list[tuple[int, str]]) -> ExportError:
    """The parser's first error, with the node's name."""
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        if _NO_DRIVER.search(error.desc()):
            continue
        return ExportError(
            f"TensorRT-RTX refuses layer '{error.node_name()}' ({error.node_operator()}): {error.desc()}",
            fix="Rewrite that layer of the network; nothing was written",
        )
    return ExportError(f"TensorRT-RTX refuses the graph: {_first_error(messages)}")


def _first_error(messages: list[tuple[int, str]]) -> str:
    errors = [message for severity, message in messages if severity <= 1 and not _NO_DRIVER.search(message)]
    return errors[0].strip() if errors else "it gave no reason"
