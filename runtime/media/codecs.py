"""The encoders of FFmpeg that write videos, and how each is asked for quality."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from derain.errors import MediaError, UsageError

Codec: TypeAlias = Literal["h264", "h265", "av1"]
CODECS: tuple[Codec, ...] = ("h264", "h265", "av1")
_ENCODERS: dict[Codec, str] = {"h264": "libx264", "h265": "libx265", "av1": "libsvtav1"}
# x264 and x265 count to 51, SVT-AV1 to 63.
_COARSEST: dict[Codec, int] = {"h264": 51, "h265": 51, "av1": 63}
_OPTIONS: dict[Codec, dict[str, str]] = {
    "h264": {"preset": "veryfast"},
    "h265": {"preset": "veryfast", "x265-params": "log-level=error"},
    "av1": {"preset": "8"},  # from 10 on, SVT-AV1 itself warns of visible faults
}


def require_crf(codec: Codec, crf: int) -> None:
    """Refuse a quality that the encoder does not know.

    Raises:
        UsageError: ``crf`` is out of the codec's range.
    """
    if not 0 <= crf <= _COARSEST[codec]:
        raise UsageError(f"crf is {crf}", expected=f"0 (finest, large) to {_COARSEST[codec]} (coarse, small)")


def add_encoder(container: Any, codec: Codec, rate: Any, crf: int, **more: str) -> Any:
    """A new video stream in an ``av`` container, 4:2:0 with 8 bits.

    Args:
        rate: nominal frames a second.
        crf: quality as the encoder counts it; smaller is better.
        more: further options of the encoder.

    Raises:
        MediaError: this FFmpeg was built without the encoder.

    The encoder itself is opened later: within :func:`usual_scheduling`.
    """
    import av

    encoder = _ENCODERS[codec]
    if encoder not in av.codecs_available:
        raise MediaError(f"This FFmpeg has no encoder '{encoder}'", fix="Install PyAV's own build: pip install av")
    if codec == "av1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only; its report of each encoding would fill the terminal
    stream = container.add_stream(encoder, rate=rate, options={"crf": str(crf)} | _OPTIONS[codec] | more)
    stream.pix_fmt = "yuv420p"
    if codec == "h265" and container.format.name in ("mp4", "mov"):
        stream.codec_context.codec_tag = "hvc1"  # the form of H.265 in MP4 that Apple's players show
    return stream


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """Open an encoder here, and what it does to the scheduling of threads is undone.

    SVT-AV1, when root runs it (as in most containers), gives the calling thread and all of its own real-time priority:
    on a small machine decoding and inference then starve, for as long as the process lives.
    """
    if not hasattr(os, "sched_setscheduler"):  # not Linux: nothing of this happens there
        yield
        return
    before = _policies()
    usual, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread, policy in _policies().items():
            if policy != before.get(thread, usual):
                with suppress(ProcessLookupError):  # it has just ended
                    os.sched_setscheduler(thread, before.get(thread, usual), parameters)


def _policies() -> dict[int, int]:
    """The scheduling policy of each thread of this process."""
    found = {}
    for thread in (int(task.name) for task in Path("/proc/self/task").iterdir()):
        with suppress(ProcessLookupError):
            found[thread] = os.sched_getscheduler(thread)
    return found
