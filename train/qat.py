"""Fake quantization: a network computes, in float, what its INT8 file will compute.

The exported graph names its nodes after the module that computes them and counts the calls, so that every recurrence of
a shared stage has a name of its own. The same names are made here while the network runs, and each convolution,
residual addition and product rounds what the INT8 file rounds: by its ranges of activations, its weights per channel,
and to float16 where a layer was kept. Gradients pass straight through the rounding (Bengio et al. 2013, arXiv
1308.3432), but not where a value lies outside its range. Weights, their names and the checkpoint stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from derain.card import TrainedRanges
from derain.documents import first_problem
from derain.errors import CheckpointError, ModelFileError
from derain.train.checkpoint import CheckpointInfo
from derain.train.deployable import Deployable
from derain.train.networks.reparam import BranchedConv

_OPERATORS = {
    "conv2d": "Conv",
    "linear": "Conv",  # of one pixel, in the file
    "matmul": "MatMul",
    "__matmul__": "MatMul",
    "add": "Add",
    "__add__": "Add",
    "add_": "Add",
    "__iadd__": "Add",
    "mul": "Mul",
    "__mul__": "Mul",
    "__rmul__": "Mul",
    "mul_": "Mul",
    "__imul__": "Mul",
}
_STEPS = 127


def fake_quantize(network: Deployable, ranges: TrainedRanges) -> None:
    """Let a network round as its INT8 file does, whenever it or one of its modules runs; in place.

    Args:
        network: of the layers that ``ranges`` names; convolutions that train in branches run folded.
        ranges: held fixed.

    Raises:
        ModelFileError: a layer of ``ranges`` is not in the network.
    """
    for module in network.modules():
        if isinstance(module, BranchedConv):
            module.forward = _run_folded(module)
    rounding = _Rounding(ranges)
    for path, module in network.named_modules():
        if path:
            module.register_forward_pre_hook(rounding.enter_module(path))
            module.register_forward_hook(rounding.leave_module, always_call=True)
    rounding.learn_order(network)


def restore_quantization(network: Deployable, info: CheckpointInfo) -> None:
    """Let the network of a checkpoint compute as it was trained to: as its INT8 file does, if it was trained for one.

    Raises:
        CheckpointError: what the checkpoint says of its ranges is not valid.
    """
    if info.quantization is None:
        return
    try:
        ranges = TrainedRanges.model_validate(info.quantization)
    except ValidationError as error:
        raise CheckpointError(
            f"The ranges in the checkpoint '{info.name}' are not valid at {first_problem(error)}"
        ) from error
    fake_quantize(network, ranges)


class _Rounding(TorchFunctionMode):
    """Active inside the modules of one network: knows where it is, and rounds there."""

    def __init__(self, ranges: TrainedRanges) -> None:
        super().__init__()
        self._ranges = ranges
        self._half = frozenset(ranges.float16)
        self._divided: dict[str, Tensor] = {}
        self._results_divided: dict[str, Tensor] = {}
        for entry in ranges.equalized:
            by = torch.tensor(entry.factors, dtype=torch.float32).view(1, -1, 1, 1)
            self._divided.update(dict.fromkeys(entry.inputs, by))
            self._results_divided.update(dict.fromkeys(entry.outputs, by))
        self._inside: list[str] = []
        self._calls: Counter[str] = Counter()
        self._a_pass: Counter[str] = Counter()

    def enter_module(self, path: str) -> Callable[..., None]:
        scope = path.replace(".", "/")

        def enter(*_: object) -> None:
            if not self._inside:
                self.__enter__()  # type: ignore[no-untyped-call]
            self._inside.append(scope)

        return enter

    def leave_module(self, *_: object) -> None:
        self._inside.pop()
        if not self._inside:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def learn_order(self, network: Deployable) -> None:
        """Count the calls of one pass: then the number of a call tells its recurrence, pass after pass."""
        step = network.spec.multiple_of
        side = step * -(-max(64, network.spec.minimum) // step)
        parameter = next(network.parameters())
        training = network.training
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, side, side, dtype=parameter.dtype, device=parameter.device))
        network.train(training)
        self._a_pass = self._calls
        self._calls = Counter()
        names = {f"{base}.{turn}" if turn > 1 else base for base, n in self._a_pass.items() for turn in range(1, n + 1)}
        planned = [*self._ranges.inputs, *self._ranges.outputs, *self._ranges.float16]
        missing = [name for name in planned if name not in names]
        if missing:
            raise ModelFileError(
                f"The ranges of {self._ranges.source} are of layers that this network does not have: {missing[:3]}",
                expected="an INT8 file of the very network that is trained",
                fix="Export the checkpoint, and calibrate that file",
            )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = _OPERATORS.get(getattr(func, "__name__", ""))
        if operator is None:
            return func(*args, **(kwargs or {}))
        base = f"{self._inside[-1]}/{operator}"
        turn = self._calls[base] % (self._a_pass[base] or 1 << 30)
        self._calls[base] += 1
        name = f"{base}.{turn + 1}" if turn else base
        return self._compute(name, func, args, kwargs or {})

    def _compute(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs, largest = list(args), self._ranges.inputs.get(name, [])
        by = self._divided.get(name)
        for position, magnitude in enumerate(largest):
            inputs[position] = _round_divided(inputs[position], magnitude, by)
        if largest and _OPERATORS[func.__name__] == "Conv":
            inputs[1] = _round_weights(inputs[1], by)
        if name in self._half:
            inputs = [_round_half(value) if isinstance(value, Tensor) else value for value in inputs]
        result = func(*inputs, **kwargs)
        if name in self._half:
            result = _round_half(result)
        if name in self._ranges.outputs:
            result = _round_divided(result, self._ranges.outputs[name], self._results_divided.get(name))
        return result


def round_activation(x: Tensor, largest: float) -> Tensor:
    """To the nearest of 256 values, ``largest / 127`` apart, half to even, as QuantizeLinear with DequantizeLinear."""
    scale = float(torch.tensor(largest, dtype=torch.float32) / _STEPS)
    return torch.fake_quantize_per_tensor_affine(x, scale, 0, -_STEPS - 1, _STEPS)


def _round_divided(x: Tensor, largest: float, by: Tensor | None) -> Tensor:
    """:func:`round_activation` of channels that the INT8 file divides by factors, (1, C, 1, 1), before it rounds."""
    if by is None:
        return round_activation(x, largest)
    by = _along_channels(by, x)
    return round_activation(x / by, largest) * by


def _along_channels(by: Tensor, x: Tensor) -> Tensor:
    """(1, C, 1, 1) for what has channels in its second dimension and as many dimensions as ``x``."""
    return by.to(x).view(1, -1, *[1] * (x.ndim - 2))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, None]:
        return gradients[0], None


def _round_weights(weights: Tensor, by: Tensor | None) -> Tensor:
    """Each output channel of (O, I, h, w) or (O, I) to 255 values about zero, the largest of them its largest weight.

    The file's weights are multiplied by what its input channels were divided by; what output channels are divided by
    goes into their scale, and changes nothing.
    """
    with torch.no_grad():
        factor = weights.new_ones(1) if by is None else _along_channels(by, weights)
        stored = weights * factor
        scale = stored.abs().amax(tuple(range(1, stored.ndim)), keepdim=True) / _STEPS
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        rounded = (stored / scale).round().clamp(-_STEPS, _STEPS) * scale / factor
    result: Tensor = _StraightThrough.apply(weights, rounded)  # type: ignore[no-untyped-call]
    return result


def _round_half(x: Tensor) -> Tensor:
    result: Tensor = _StraightThrough.apply(x, x.detach().half().to(x.dtype))  # type: ignore[no-untyped-call]
    return result


def _run_folded(module: BranchedConv) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        kernel, bias = module.kernel_and_bias()
        return F.conv2d(x, kernel, bias, padding=1)

    return forward
