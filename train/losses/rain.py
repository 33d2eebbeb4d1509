"""What is known of rain as such. Pictures are float (B, C, H, W) in [0, 1]."""

from __future__ import annotations

from torch import Tensor


def rain_strength(rainy: Tensor, clean: Tensor, gain: float = 2.0) -> Tensor:
    """What the attention map should show where the clean picture is known: ``min(1, gain * max_c |I - J|)``.

    Returns:
        (B, 1, H, W) in [0, 1]. 0.5 of the range moved counts as full rain-fog at the default gain.
    """
    return ((rainy - clean).abs().amax(1, keepdim=True) * gain).clamp(max=1.0)


def channel_consistency(rain: Tensor) -> Tensor:
    """CSUD's CCLoss: rain moves the three channels alike. ``rain`` is rainy minus clean, (B, 3, H, W)."""
    r, g, b = rain.unbind(1)
    return (r - g).abs().mean() + (g - b).abs().mean()
