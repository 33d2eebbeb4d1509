"""GStreamer pipelines as source and sink, through ``gst-launch-1.0`` in a process of its own.

A pipeline that hangs in a driver cannot be interrupted from within; a process can be ended. It needs neither an OpenCV
that was built with GStreamer nor Python bindings, and it is the same GStreamer that the machine's cameras use.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from derain.errors import DerainError, MediaError, UsageError
from derain.runtime.live.av_source import AvSource
from derain.runtime.live.matroska import RawVideo
from derain.runtime.media.colour import Colour
from derain.runtime.media.items import Item, Picture

_LAUNCH = "gst-launch-1.0"
# AVCOL_SPC_BT709, AVCOL_RANGE_MPEG: what the caps below ask for, because YUV4MPEG2 cannot tell.
_BT709 = Colour(space=1, range=1)
_FROM_PIPELINE = "! videoconvert ! video/x-raw,format=I420,colorimetry=bt709 ! y4menc ! fdsink fd=1 sync=false"
_END_SECONDS = 3.0
WRITE_SECONDS = 10.0


def csi_pipeline(sensor: int, size: tuple[int, int] | None, rate: int | None) -> str:
    """A Jetson's CSI camera through the ISP: ``nvarguscamerasrc`` gives NVMM buffers, ``nvvidconv`` ordinary ones."""
    width, height = size or (1920, 1080)
    caps = f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate or 30}/1"
    return f"nvarguscamerasrc sensor-id={sensor} ! {caps} ! nvvidconv ! video/x-raw,format=I420"


class GStreamerSource:
    """Frames from a pipeline whose last element gives ``video/x-raw``.

    Raises:
        UsageError: the text is no pipeline.
        MediaError: GStreamer is not installed, or the pipeline failed; the message holds what it said.
    """

    frame_count: int | None = None

    def __init__(self, pipeline: str) -> None:
        self.pipeline = pipeline
        self.warnings: list[str] = []
        self.damaged = 0

    def __enter__(self) -> GStreamerSource:
        self._process = _Launch(f"{self.pipeline} {_FROM_PIPELINE}", "-q", stdout=subprocess.PIPE)
        self._frames = AvSource(
            self._process.process.stdout, "yuv4mpegpipe", colour=_BT709, name="the GStreamer pipeline"
        )
        try:
            self._frames.__enter__()
        except MediaError as error:
            self._process.end(0)
            raise self._process.failed() or error from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.end(0)
        self._frames.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Item]:
        yield from self._frames
        self.damaged = self._frames.damaged
        self._process.end(_END_SECONDS)
        if (failure := self._process.failed()) is not None:
            raise failure

    def interrupt(self) -> None:
        """End the process, so that a read that hangs returns. May be called from any thread."""
        self._process.interrupt()


class GStreamerPush:
    """Pictures into a pipeline whose first element takes ``video/x-raw``; made for one size.

    Args:
        pipeline: for example ``x264enc tune=zerolatency ! rtspclientsink location=rtsp://...``.
        size: width and height, both even.
        rate: nominal frames a second, for the caps.
        patience: seconds without taking anything after which it counts as dead.
    """

    def __init__(self, pipeline: str, size: tuple[int, int], rate: int = 30, patience: float = WRITE_SECONDS) -> None:
        self._patience = patience
        self._video = RawVideo(*size, rate)
        self._begin: float | None = None
        self._last = -1
        self._process = _Launch(
            f"fdsrc fd=0 ! matroskademux ! videoconvert ! {pipeline}", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.process.stdin is not None
        self._pipe = self._process.process.stdin
        os.set_blocking(self._pipe.fileno(), False)
        self._playing: float | None = None
        threading.Thread(target=self._note_start, name="derain-gstreamer", daemon=True).start()

    def write(self, pixels: Picture, seconds: float | None = None) -> None:
        """Hand over a uint8 (H, W, 3) BGR picture; waits while the pipeline is behind.

        Args:
            seconds: a file's own time; None for the time of this call, so that a sink that waits for a picture's time
                shows it at once.

        Raises:
            MediaError: the pipeline ended, or took nothing for so long that it counts as dead.
            UsageError: it cannot be built.
        """
        pieces: list[bytes | memoryview] = list(self._video.frame(pixels, self._milliseconds(seconds)))
        if self._begin is None:
            self._begin = seconds or 0.0
            pieces.insert(0, self._video.header())
        try:
            for piece in pieces:
                self._write_all(memoryview(piece))
        except OSError as error:
            self._process.end(_END_SECONDS)
            raise self._process.failed() or MediaError(f"The GStreamer pipeline ended ({error})") from error

    def close(self) -> None:
        """Send the end of the stream and wait until the pipeline has finished its output.

        Raises:
            MediaError: it failed.
        """
        with suppress(OSError):  # it may have ended already, and tells why below
            self._pipe.close()
        self._process.end(_END_SECONDS)
        if (failure := self._process.failed()) is not None:
            raise failure

    def _milliseconds(self, seconds: float | None) -> int:
        """The pipeline's own time begins when it plays, a moment after it got its first picture."""
        if seconds is not None:
            own = seconds - (seconds if self._begin is None else self._begin)
        else:
            own = 0.0 if self._playing is None else time.monotonic() - self._playing
        self._last = max(self._last + 1, round(1e3 * own))
        return self._last

    def _write_all(self, left: memoryview) -> None:
        while left:
            if not select.select([], [self._pipe], [], self._patience)[1]:
                self._process.interrupt()
                raise MediaError(f"The GStreamer pipeline took nothing for {self._patience:g} s")
            left = left[self._pipe.write(left) or 0 :]

    def _note_start(self) -> None:
        stdout = self._process.process.stdout
        assert stdout is not None
        for line in stdout:
            if self._playing is None and b"PLAYING" in line:
                self._playing = time.monotonic()
        stdout.close()


class _Launch:
    """A running ``gst-launch-1.0`` and what it says on stderr."""

    def __init__(self, pipeline: str, *options: str, **pipes: Any) -> None:
        launch = shutil.which(_LAUNCH)
        if launch is None:
            raise MediaError(
                f"'{_LAUNCH}' is not installed, and GStreamer pipelines and CSI cameras need it",
                fix="Install it: sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good",
            )
        try:
            words = shlex.split(pipeline)
        except ValueError as error:
            raise UsageError(f"The pipeline '{pipeline}' cannot be read ({error})") from error
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in end)
        self._message = ""
        self._ended_by_us = False
        environment = os.environ | {"LC_ALL": "C"}  # what it says is read, and must not be translated
        self.process = subprocess.Popen(
            [launch, *options, *words], bufsize=0, stderr=self._said, env=environment, **pipes
        )

    def interrupt(self) -> None:
        """End it; whoever reads from it tidies up."""
        self._ended_by_us = True
        self.process.kill()

    def end(self, patience: float) -> None:
        """Wait ``patience`` seconds for it to end by itself, then end it."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self._ended_by_us = True
            self.process.kill()
            self.process.wait()
        if not self._said.closed:
            self._said.seek(0)
            self._message = self._said.read(20_000).decode(errors="replace")
            self._said.close()

    def failed(self) -> DerainError | None:
        """What it complained about, when it ended by itself with an error.

        A pipeline that cannot be built is a :class:`UsageError`: the same text will not do better later.
        """
        lines = [line.strip() for line in self._message.splitlines() if "ERROR" in line or "WARNING: err" in line]
        if not lines and (self.process.returncode == 0 or self._ended_by_us):
            return None
        told = lines[0] if lines else f"exit code {self.process.returncode}"
        kind = UsageError if "erroneous pipeline" in told else MediaError
        return kind(f"The GStreamer pipeline failed ({told})", fix=f"Try it with {_LAUNCH} alone")
