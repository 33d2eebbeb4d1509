"""Which layers cost quality, and the fewest to keep in higher precision until the loss is small enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Drop = Callable[[frozenset[str]], float]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """The outcome of the search.

    Attributes:
        sensitivity: layer to the drop in dB that it causes alone, the others in higher precision.
        steps: how many layers were kept and the drop then, in the order tried.
        kept: layers that stay in higher precision.
        drop: with these, dB; above the limit when even keeping all did not help.
    """

    sensitivity: dict[str, float]
    steps: list[tuple[int, float]]
    kept: frozenset[str]
    drop: float


def sensitivities(layers: Sequence[str], drop: Drop, *, say: Progress = lambda _: None) -> dict[str, float]:
    """The drop that each layer causes alone.

    Args:
        layers: that may be of lower precision.
        drop: the drop in dB when these layers are kept in higher precision.
        say: told each layer.
    """
    found = {}
    for number, layer in enumerate(layers, 1):
        say(f"sensitivity of layer {number} of {len(layers)}")
        found[layer] = drop(frozenset(layers) - {layer})
    return found


def fewest_kept(
    layers: Sequence[str],
    sensitivity: dict[str, float],
    drop: Drop,
    limit: float,
    *,
    say: Progress = lambda _: None,
) -> Found:
    """Greedy search: keep the most sensitive layer, measure, and so on until the limit holds; then give back.

    Giving back tries each kept layer in lower precision again, the least sensitive first: what only helped on the way
    does not stay.

    Args:
        layers: that may be of lower precision.
        sensitivity: of :func:`sensitivities`.
        drop: the drop in dB when these layers are kept.
        limit: dB.
        say: told each step.
    """
    order = sorted(layers, key=lambda layer: -sensitivity[layer])
    kept: list[str] = []
    now = drop(frozenset())
    steps = [(0, now)]
    while now > limit and len(kept) < len(order):
        kept.append(order[len(kept)])
        say(f"{len(kept)} layers kept: {kept[-1]}")
        now = drop(frozenset(kept))
        steps.append((len(kept), now))
    if now <= limit:
        for layer in reversed(kept[:-1]):
            fewer = frozenset(kept) - {layer}
            say(f"without {layer}")
            less = drop(fewer)
            if less <= limit:
                kept.remove(layer)
                now = less
                steps.append((len(kept), now))
    return Found(sensitivity, steps, frozenset(kept), now)
