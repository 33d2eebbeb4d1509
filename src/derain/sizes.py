"""Sizes of frames as people write them: ``1280x720``, and with a batch ``1280x720x4``."""

from __future__ import annotations

import re

from derain.errors import UsageError

Shape = tuple[int, int, int]
"""(batch, height, width)."""
_LARGEST_SIDE = 65536
_SIZE = re.compile(r"(\d+)x(\d+)(?:x(\d+))?")


def parse_size(text: str, option: str) -> Shape:
    """``1280x720`` (width x height) or ``1280x720x4`` (and batch) to (batch, height, width).

    Raises:
        UsageError: not of this form, or a number outside 1..65536; it names the option.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(
            f"{option} is '{text}'", expected="WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH, as 1280x720 or 1280x720x4"
        )
    width, height, batch = (int(group) if group else 1 for group in match.groups())
    for name, value in (("width", width), ("height", height), ("batch", batch)):
        if not 1 <= value <= _LARGEST_SIDE:
            raise UsageError(f"{option} is '{text}', of {name} {value}", expected=f"1 to {_LARGEST_SIDE}")
    return batch, height, width


def size_text(shape: Shape) -> str:
    """(1, 720, 1280) to ``1280x720``; a batch other than 1 follows as a third number."""
    batch, height, width = shape
    return f"{width}x{height}" + (f"x{batch}" if batch != 1 else "")
