"""From a module to one clean ONNX graph: traced, named, folded, its weights stored once, and checked."""

from __future__ import annotations

import ast
import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from derain import __version__
from derain.errors import ExportError, MissingDependencyError
from derain.export.fold import constant_maps, repeated_weights, share_weights
from derain.export.graph import CameraGraph
from derain.export.matrix import rewrite_products
from derain.export.operators import check_operators
from derain.export.scope import CONTEXT_SCOPE
from derain.export.shapes import plain_shapes
from derain.folding import complete_names, fold
from derain.sizes import Shape

if TYPE_CHECKING:
    import onnx

OPSET = 18
MAX_IR_VERSION = 10
_SCOPES = "pkg.torch.onnx.name_scopes"


def trace(graph: CameraGraph, size: Shape | None = None) -> onnx.ModelProto:
    """Trace a module into an ONNX graph with dynamic batch, height and width, or with one fixed size.

    The fixed graph is the dynamic one with its sizes filled in and folded, so that both are one and the same network.

    Args:
        graph: in evaluation mode.
        size: (batch, height, width) to fix; None keeps them dynamic.

    Returns:
        A checked model of opset 18 without card: the names of ``graph.contract``, nodes named after their layers.

    Raises:
        ExportError: the network cannot be traced for all sizes, or holds an operator that TensorRT lacks.
        MissingDependencyError: onnx, onnxscript or onnxslim is not installed.
    """
    model = _to_onnx(graph)
    _name_nodes(model)
    _name_dimensions(model, graph)
    plain_shapes(model)
    model = fold(model, graph.contract.inputs(graph.part), size)
    rewrite_products(model, CONTEXT_SCOPE)
    complete_names(model)
    share_weights(model)
    constant_maps(model)
    model.producer_name, model.producer_version = "derain", __version__
    model.graph.name = f"{graph.network.spec.system}-{graph.network.spec.variant}-{graph.part}"
    check(model, graph)
    return model


def example_inputs(graph: CameraGraph, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
    """Random inputs of the contract's types: for tracing."""
    frames = graph.contract.frames
    if frames == "float":
        inputs: tuple[Tensor, ...] = (torch.rand(batch, 3, height, width),)
    elif frames == "nv12":
        luma = torch.randint(0, 256, (batch, height, width), dtype=torch.uint8)
        inputs = luma, torch.randint(0, 256, (batch, height // 2, width // 2, 2), dtype=torch.uint8)
    else:
        inputs = (torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8),)
    if graph.part == "tile":
        length = graph.network.spec.context_size
        assert length is not None
        inputs = (*inputs, torch.zeros(batch, length))
    return inputs


def _to_onnx(graph: CameraGraph) -> onnx.ModelProto:
    """Export with dynamic sizes through torch.export; the names of inputs and outputs are the contract's."""
    step = max(graph.network.spec.multiple_of, graph.network.spec.minimum, 16)
    # No size of the example may equal another, or be one that a layer could treat as special.
    inputs = example_inputs(graph, 2, 5 * step + 2, 7 * step + 6)
    auto = torch.export.Dim.AUTO
    dynamic = [_dynamic_dimensions(port.layout, auto) for port in graph.contract.inputs(graph.part)]
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                graph,
                inputs,
                dynamic_shapes={"inputs": tuple(dynamic)},
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            exported = torch.onnx.export(
                program,
                (),
                input_names=[port.name for port in graph.contract.inputs(graph.part)],
                output_names=[port.name for port in graph.contract.outputs(graph.part)],
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except ImportError as error:
        raise MissingDependencyError(error.name or "onnxscript", needed_for="derain export", extra="export") from error
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"The network '{graph.network.spec.system}' ({graph.network.spec.variant}) could not be traced: {reason}",
            fix="The message names the operation; its shapes must follow from the input's by arithmetic alone",
        ) from error
    assert exported is not None
    return exported.model_proto


def _dynamic_dimensions(layout: str, auto: Any) -> dict[int, Any]:
    """Which dimensions of an input vary: all but channels and the length of the context."""
    return {axis: auto for axis, letter in enumerate(layout) if letter in "NHW"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch's exporter warns about packages and internals that no user of derain can change."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Name nodes after the layer they came from, as ``generator/stage/first/Conv``; repeats count from 2.

    The first component is the *part*: of the network, ``context`` for its whole-frame context, ``camera`` for the frame
    contract around it. Reports group by it, and errors name the layer by it.
    """
    seen: dict[str, int] = {}
    for node in model.graph.node:
        scopes = next((_scopes(entry.value) for entry in node.metadata_props if entry.key == _SCOPES), [])
        name = "/".join([*_layer(scopes), node.op_type])
        seen[name] = seen.get(name, 0) + 1
        node.name = name if seen[name] == 1 else f"{name}.{seen[name]}"


def _scopes(text: str) -> list[str]:
    try:
        return [str(part) for part in ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return []


def _layer(scopes: Sequence[str]) -> list[str]:
    """Name scopes as torch gives them, the graph's own first and the operation last, to the layer's path."""
    modules = [scope for scope in scopes[:-1] if scope and not scope.startswith("_empty")]
    inner = modules[-1] if modules else ""
    path = inner.split(".") if inner else []
    if path[:1] == ["network"]:
        path = path[1:] or ["network"]
    scope = CONTEXT_SCOPE.rstrip("/")
    if scope in modules and path[:1] != [scope]:
        path = [scope, *(part for part in path if part != "network")]
    return path or ["camera"]


def _name_dimensions(model: onnx.ModelProto, graph: CameraGraph) -> None:
    """Give the dynamic sizes of inputs and outputs readable names.

    Raises:
        ExportError: the trace fixed a size that must vary.
    """
    readable = {"N": "batch", "H": "height", "W": "width"}
    ports = [*graph.contract.inputs(graph.part), *graph.contract.outputs(graph.part)]
    for value, port in zip([*model.graph.input, *model.graph.output], ports, strict=True):
        halved = port.channels == "UV"
        for dimension, letter in zip(value.type.tensor_type.shape.dim, port.layout, strict=True):
            if letter not in readable:
                continue
            if dimension.HasField("dim_value"):
                raise ExportError(
                    f"The network '{graph.network.spec.system}' fixes the {readable[letter]} of '{port.name}' "
                    f"to {dimension.dim_value}",
                    expected="a network that takes any size",
                )
            dimension.dim_param = ("half_" if halved and letter != "N" else "") + readable[letter]


def check(model: onnx.ModelProto, graph: CameraGraph) -> None:
    """ONNX's own checker, the operators TensorRT has, one file, the version limits and the contract's types.

    Raises:
        ExportError: any of these fails.
    """
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exported graph is not valid ONNX: {error}", fix="Report this as a bug") from error
    check_operators(model)
    if model.ir_version > MAX_IR_VERSION:
        raise ExportError(f"The graph has ir_version {model.ir_version}", expected=f"at most {MAX_IR_VERSION}")
    outside = [t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise ExportError(f"The weights {outside[:3]} lie outside the file", expected="one file")
    repeated = repeated_weights(model)
    if repeated:
        raise ExportError(f"The weights {repeated[:3]} are stored more than once", fix="Report this as a bug of derain")
    ports = [*graph.contract.inputs(graph.part), *graph.contract.outputs(graph.part)]
    for value, port in zip([*model.graph.input, *model.graph.output], ports, strict=True):
        found = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        if value.name != port.name or found != port.dtype:
            raise ExportError(
                f"The graph has '{value.name}' as {found}", expected=f"'{port.name}' as {port.dtype}", fix="Report this"
            )
