"""Sizes a graph is exported for: parsing ``WxH[xB]`` and the profile that travels in the card."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from derain.card import Profile
from derain.errors import UsageError

DEFAULT_MIN = (1, 64, 64)
DEFAULT_OPT = (1, 720, 1280)
DEFAULT_MAX = (1, 1080, 1920)
_LARGEST_SIDE = 65536
_SIZE = re.compile(r"(\d+)x(\d+)(?:x(\d+))?")

Shape = tuple[int, int, int]


def parse_size(text: str, option: str) -> Shape:
    """``1280x720`` (width x height) or ``1280x720x4`` (and batch) to (batch, height, width).

    Raises:
        UsageError: not of this form, or a number outside 1..65536.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(
            f"{option} got '{text}'", expected="WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH, as 1280x720 or 1280x720x4"
        )
    width, height, batch = (int(group) if group else 1 for group in match.groups())
    for name, value in (("width", width), ("height", height), ("batch", batch)):
        if not 1 <= value <= _LARGEST_SIDE:
            raise UsageError(f"{option} got {name} {value}", expected=f"1 to {_LARGEST_SIDE}")
    return batch, height, width


def format_size(shape: Shape) -> str:
    """(1, 720, 1280) to ``1280x720``; a batch other than 1 follows as a third number."""
    batch, height, width = shape
    return f"{width}x{height}" + (f"x{batch}" if batch != 1 else "")


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
                f"{name} {format_size(small)} is larger than {format_size(large)} in some dimension",
                expected="min <= opt <= max in width, height and batch",
            )
    return Profile(min=lower, opt=middle, max=upper)


def _each(choose: Callable[[Iterable[int]], int], *shapes: Shape) -> Shape:
    batch, height, width = (choose(values) for values in zip(*shapes, strict=True))
    return batch, height, width
