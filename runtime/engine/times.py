"""What trtexec measured: the file of its option ``--exportTimes``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain.errors import ModelFileError
from derain.files import check_size

_MAX_BYTES = 256 << 20
_FIX = "Measure again with the benchmark script of derain build --script"


@dataclass(frozen=True)
class TrtexecTimes:
    """One entry for each inference, in order. All in milliseconds.

    Attributes:
        compute: on the GPU.
        copies_in, copies_out: between host and device; zeros where trtexec was told to leave them out.
        latency: from the first byte in to the last byte out.
        span: from the start of the first inference's computing to the end of the last one's.
    """

    compute: list[float]
    copies_in: list[float]
    copies_out: list[float]
    latency: list[float]
    span: float

    @property
    def frames_per_second(self) -> float:
        """Inferences per second over the whole run, for one picture each."""
        return 1000 * len(self.latency) / self.span


def read_times(path: Path) -> TrtexecTimes:
    """Read a file of ``trtexec --exportTimes``.

    Raises:
        ModelFileError: missing, damaged, empty, or another file.
    """
    check_size(path, _MAX_BYTES, ModelFileError)
    try:
        entries: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"'{path}' is not JSON ({error})", fix=_FIX) from error
    if not isinstance(entries, list) or not entries:
        raise ModelFileError(f"'{path}' holds no list of times", expected="the file of trtexec --exportTimes", fix=_FIX)
    try:
        columns = {
            name: [float(entry[name]) for entry in entries] for name in ("computeMs", "h2dMs", "d2hMs", "latencyMs")
        }
        begin = min(float(entry["startComputeMs"]) for entry in entries)
        end = max(float(entry["endComputeMs"]) for entry in entries)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"'{path}' has an entry without {error}", expected="the file of trtexec --exportTimes", fix=_FIX
        ) from error
    if end <= begin or min(columns["latencyMs"]) <= 0:
        raise ModelFileError(f"'{path}' holds times that cannot be: {end - begin:g} ms in all", fix=_FIX)
    return TrtexecTimes(columns["computeMs"], columns["h2dMs"], columns["d2hMs"], columns["latencyMs"], end - begin)
