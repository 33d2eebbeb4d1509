"""Sizes a graph is exported for: the profile that travels in the card."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from derain.card import Profile
from derain.errors import UsageError
from derain.sizes import Shape, size_text

DEFAULT_MIN = (1, 64, 64)
DEFAULT_OPT = (1, 720, 1280)
DEFAULT_MAX = (1, 1080, 1920)


def make_profile(
    *,
    size: Shape | None = None,
    minimum: Shape | None = None,
    optimum: Shape | None = None,
    maximum: Shape | None = None,
) -> Profile:
    """The profile of a fixed ``size``, or of a range; what is left out of a range comes from the defaults.

    A default gives way to a given value: ``--max 640x480`` alone also lowers the optimum.

    Raises:
        UsageError: ``size`` together with a range, or min <= opt <= max does not hold in every dimension.
    """
    if size is not None:
        if minimum or optimum or maximum:
            raise UsageError("--size was given together with --min, --opt or --max", expected="a fixed size or a range")
        return Profile(min=size, opt=size, max=size)
    lower = minimum or _each(min, DEFAULT_MIN, optimum or DEFAULT_MIN, maximum or DEFAULT_MIN)
    upper = maximum or _each(max, DEFAULT_MAX, lower, optimum or DEFAULT_MAX)
    middle = optimum or _each(max, lower, _each(min, upper, DEFAULT_OPT))
    for name, small, large in (("--min", lower, middle), ("--opt", middle, upper)):
        if any(a > b for a, b in zip(small, large, strict=True)):
            raise UsageError(
                f"{name} {size_text(small)} is larger than {size_text(large)} in some dimension",
                expected="min <= opt <= max in width, height and batch",
            )
    return Profile(min=lower, opt=middle, max=upper)


def _each(choose: Callable[[Iterable[int]], int], *shapes: Shape) -> Shape:
    batch, height, width = (choose(values) for values in zip(*shapes, strict=True))
    return batch, height, width
