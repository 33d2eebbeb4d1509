"""Rewrites of a graph that OpenVINO's CPU plugin does not make itself. Each gives the same result, but for rounding."""

from __future__ import annotations

from typing import Any

# Operators that only put elements elsewhere, whatever their type.
_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "StridedSlice"})


def streamline(model: Any, operators: Any) -> None:
    """Rewrite an ``openvino.Model`` in place; its inputs and outputs keep their names, types and shapes.

    Args:
        model: of any size or a fixed one.
        operators: an operator set of the package, such as ``openvino.opset13``.
    """
    _clamp_hard_sigmoids(model, operators)
    _double_by_multiplying(model, operators)
    _move_bytes(model, operators)
    model.validate_nodes_and_infer_types()


def _clamp_hard_sigmoids(model: Any, operators: Any) -> None:
    """As a scaled clamp: the plugin (2026.4) computes a hard sigmoid by a slow reference, channel by channel.

    The scale goes into the convolution before, and the clamp is fused with it.
    """
    for node in _of_type(model, "HardSigmoid"):
        value, slope, offset = (node.input_value(position) for position in range(3))
        scaled = operators.add(operators.multiply(value, slope), offset)
        node.output(0).replace(operators.clamp(scaled, 0.0, 1.0).output(0))


def _double_by_multiplying(model: Any, operators: Any) -> None:
    """``x + x``, the input of a stage's first turn, as ``2 x``: the factor goes into the convolution behind it."""
    for node in _of_type(model, "Add"):
        first, second = node.input_value(0), node.input_value(1)
        if first == second and first.get_element_type().is_real():
            two = operators.constant(2.0, first.get_element_type())
            node.output(0).replace(operators.multiply(first, two).output(0))


def _move_bytes(model: Any, operators: Any) -> None:
    """Results that become bytes do so before they are moved to their places, not after: a quarter of the memory."""
    for convert in _of_type(model, "Convert"):
        kind = convert.get_output_element_type(0)
        if kind.size >= convert.get_input_element_type(0).size:
            continue
        last = source = convert.input_value(0)
        first = None
        while source.get_node().get_type_name() in _MOVES and len(source.get_target_inputs()) == 1:
            first = source.get_node()
            source = first.input_value(0)
        if first is None:
            continue
        consumers, names = convert.output(0).get_target_inputs(), convert.output(0).get_names()
        first.input(0).replace_source_output(operators.convert(source, kind.get_type_name()).output(0))
        for consumer in consumers:
            consumer.replace_source_output(last)
        last.add_names(names)


def _of_type(model: Any, name: str) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == name]
