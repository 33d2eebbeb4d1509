"""ReMAEN, the recurrent multi-scale aggregation and enhancement network (ICME 2019; SYSTEMS.md 4), at both sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.train.networks.blocks import conv3, init_he, widen, zero_init

GRID = 4
_SLOPE = 0.2
_DILATIONS = (1, 2, 3)
_REDUCTION = 4
_EXTRACTING = 4
_RESPONDING = 3
_STEM_KERNEL = 12


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)


class ChannelAttention(nn.Module):
    """Squeeze and excitation: each channel is scaled by what its mean over the whole frame says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, width // _REDUCTION)
        self.excite = nn.Linear(width // _REDUCTION, width)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * scale[:, :, None, None]


class MultiScaleBlock(nn.Module):
    """MAEB: two convolutions applied at dilation 1, 2 and 3 with *the same weights*, summed, then channel attention."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first = conv3(inputs, width)
        self.second = conv3(width, width)
        self.attention = ChannelAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for dilation in _DILATIONS:
            branch = _leaky(_dilated(self.second, _leaky(_dilated(self.first, x, dilation)), dilation))
            total = branch if total is None else total + branch
        assert total is not None
        out: Tensor = self.attention(total)
        return out


class ConvGru(nn.Module):
    """A convolutional GRU. Without a state yet there is nothing to reset: update and candidate suffice.

    The reset gate is a layer of its own, so that an exported file, whose first round has no state, holds no part of a
    layer a second time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.from_input = conv3(width, 2 * width)  # update, candidate
        self.reset_from_input = conv3(width, width)
        self.from_state = conv3(width, 2 * width)  # update, reset
        self.candidate = conv3(width, width)

    def forward(self, x: Tensor, state: Tensor | None) -> Tensor:
        update, candidate = self.from_input(x).chunk(2, dim=1)
        if state is None:
            return torch.sigmoid(update) * torch.tanh(candidate)
        state_update, state_reset = self.from_state(state).chunk(2, dim=1)
        z = torch.sigmoid(update + state_update)
        r = torch.sigmoid(self.reset_from_input(x) + state_reset)
        n = torch.tanh(candidate + self.candidate(r * state))
        return (1 - z) * state + z * n


class Remaen(nn.Module):
    """The published network: three rounds, each derains what the round before left; 495,771 parameters at width 32."""

    def __init__(self, width: int = 32, stages: int = 3) -> None:
        super().__init__()
        self.stages = stages
        self.blocks = nn.ModuleList(MultiScaleBlock(width if i else 3, width) for i in range(_EXTRACTING))
        self.grus = nn.ModuleList(ConvGru(width) for _ in range(_EXTRACTING + _RESPONDING))
        self.extracting_attention = ChannelAttention(width)
        self.responding_attention = ChannelAttention(width)
        self.respond = nn.ModuleList(conv3(width, width) for _ in range(_RESPONDING))
        self.residual_first = conv3(width, width)
        self.residual_attention = ChannelAttention(width)
        self.residual_last = conv3(width, 3)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, rainy: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to the derained pictures, not clamped."""
        derained = rainy
        states: list[Tensor | None] = [None] * len(self.grus)
        for _ in range(self.stages):
            x = derained
            aggregated = []
            for i, block in enumerate(self.blocks):
                aggregated.append(block(x))
                x = _leaky(self.extracting_attention(self.grus[i](aggregated[-1], states[i])))
                states[i] = x
            for j, respond in enumerate(self.respond):
                i = _EXTRACTING + j
                joined = F.relu(respond(x)) + aggregated[_RESPONDING - 1 - j]
                x = _leaky(self.responding_attention(self.grus[i](joined, states[i])))
                states[i] = x
            residual = self.residual_last(_leaky(self.residual_attention(self.residual_first(x))))
            derained = derained - widen(residual)
        return derained


class EdgeRemaen(nn.Module):
    """ReMAEN's ideas on cells of 4x4 pixels: one multi-scale block and one gated unit, shared by all rounds.

    Each round looks at the features of the picture less what the rounds before have put into the state, as each
    published round looks at the picture less the rain found so far. The gate is a hard sigmoid and the candidate
    linear: bounded or piecewise linear, which INT8 takes well.
    """

    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        self.stages = stages
        self.stem = nn.Conv2d(3, width, _STEM_KERNEL, stride=GRID, padding=(_STEM_KERNEL - GRID) // 2)
        self.block = MultiScaleBlock(width, width)
        self.gate = conv3(width, width)
        self.candidate = conv3(width, width)
        self.tail = conv3(width, 3 * GRID * GRID)
        init_he(self)
        zero_init(self.tail)

    def forward(self, rainy: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of 4, to the derained pictures, not clamped."""
        h0 = self.stem(rainy)
        seen = self.block(h0)
        h = F.hardsigmoid(self.gate(seen)) * self.candidate(seen)
        for _ in range(self.stages - 1):
            seen = self.block(h0 - h)
            h = h + F.hardsigmoid(self.gate(seen + h)) * self.candidate(seen)
        return rainy - widen(F.pixel_shuffle(self.tail(h), GRID))


def _dilated(layer: nn.Conv2d, x: Tensor, dilation: int) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, padding=dilation, dilation=dilation)
