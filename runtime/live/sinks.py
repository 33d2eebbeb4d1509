"""Where live results go: a file that survives a kill, a server, a GStreamer pipeline, pictures, lines of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias

import numpy as np

from derain.errors import MediaError, UsageError
from derain.images import write_image
from derain.runtime.live.addresses import without_password
from derain.runtime.live.gstreamer import GStreamerPush
from derain.runtime.live.stream import Reconnect, SinkAwayError
from derain.runtime.media.colour import Colour
from derain.runtime.media.items import Picture

Codec: TypeAlias = Literal["h264", "h265", "av1"]
CODECS: tuple[Codec, ...] = ("h264", "h265", "av1")
_ENCODERS: dict[Codec, str] = {"h264": "libx264", "h265": "libx265", "av1": "libsvtav1"}
_TIME_BASE = Fraction(1, 90000)
_KEY_FRAMES = 60
# Fragments of a second, each handed to the system at once: that much a kill, a power cut or a full disk can cost.
_FRAGMENTS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}
_PUSH_FORMATS = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "srt": "mpegts", "udp": "mpegts", "tcp": "mpegts"}


class LiveSink(Protocol):
    """Takes pictures of a stream as they come, in one thread."""

    def write(self, pixels: Picture, seconds: float) -> None:
        """A uint8 (H, W, 3) BGR picture and its time.

        Raises:
            MediaError: it cannot be stored.
            SinkAwayError: it was dropped; later ones may do better.
        """

    def close(self) -> None:
        """Finish; keeps everything written so far, also after an error."""


class Encoder:
    """H.264, H.265 or AV1 into a file or to a server, with the times the frames came.

    A file is called ``NAME.partial.SUFFIX`` until it is closed, and is playable at any moment, after a kill as well. A
    frame of another size than the first is scaled to it.

    Args:
        target: ``.mp4``, ``.mov`` or ``.mkv``, or a URL: ``rtmp://``, ``rtsp://``, ``srt://``, ``udp://``.
        codec: what to encode.
        crf: quality, as the encoder counts it; smaller is better.
    """

    def __init__(self, target: str | Path, codec: Codec = "h264", crf: int = 21) -> None:
        self._target = target
        self._codec = codec
        self._crf = crf
        self._scheme = str(target).partition("://")[0] if "://" in str(target) else ""
        self._container: Any = None
        self._last = -1
        self._begin = 0.0
        if self._scheme and self._scheme not in _PUSH_FORMATS:
            raise UsageError(
                f"'{without_password(str(target))}' has the scheme '{self._scheme}'",
                expected="one of " + ", ".join(_PUSH_FORMATS),
            )
        self._partial = None if self._scheme else _partial(Path(target))

    def write(self, pixels: Picture, seconds: float) -> None:
        import av

        try:
            if self._container is None:
                self._open(pixels, seconds)
            frame = self._colour.from_bgr(self._fitted(pixels), "yuv420p")
            # Two frames may come within one tick, and a clock of another source may begin earlier.
            self._last = max(self._last + 1, round((seconds - self._begin) / _TIME_BASE))
            frame.pts, frame.time_base = self._last, _TIME_BASE
            for packet in self._stream.encode(frame):
                self._container.mux_one(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def close(self) -> None:
        import av

        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            for packet in self._stream.encode(None):
                container.mux_one(packet)
            container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise self._failed(error) from error
        finally:
            with suppress(av.error.FFmpegError, OSError):
                container.close()
            if self._partial is not None and self._partial.exists():
                self._partial.replace(self._target)

    def _open(self, pixels: Picture, seconds: float) -> None:
        import av

        encoder = _ENCODERS[self._codec]
        if encoder not in av.codecs_available:
            raise MediaError(f"This FFmpeg has no encoder '{encoder}'", fix="Install PyAV's own build: pip install av")
        fragmented = not self._scheme and not str(self._target).lower().endswith(".mkv")
        # As for reading: over UDP a lost packet breaks every frame to the next key frame.
        transport = {"rtsp_transport": "tcp"} if self._scheme == "rtsp" else {}
        options = (_FRAGMENTS if fragmented else {}) | transport | {"flush_packets": "1"}
        where = str(self._target) if self._partial is None else f"file:{self._partial}"
        form = _PUSH_FORMATS.get(self._scheme)
        container = av.open(where, "w", format=form, options=options, timeout=10.0 if self._scheme else None)
        stream: Any = container.add_stream(encoder, rate=30, options=self._encoder_options())
        height, width = pixels.shape[:2]
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.gop_size = _KEY_FRAMES
        # B-frames would shift the times of a fragmented file, and delay what is pushed.
        stream.codec_context.max_b_frames = 0
        self._colour = Colour(space=1 if width >= 1280 or height > 576 else 6, range=1)
        self._colour.tag(stream.codec_context)
        self._container, self._stream, self._begin, self._last = container, stream, seconds, -1

    def _encoder_options(self) -> dict[str, str]:
        speed = {"preset": "10"} if self._codec == "av1" else {"preset": "veryfast"}
        tune = {"tune": "zerolatency"} if self._scheme and self._codec != "av1" else {}
        quiet = {"x265-params": "log-level=error"} if self._codec == "h265" else {}
        return {"crf": str(self._crf)} | speed | tune | quiet

    def _fitted(self, pixels: Picture) -> Picture:
        height, width = pixels.shape[:2]
        wanted = (self._stream.height, self._stream.width)
        if (height + height % 2, width + width % 2) == wanted:
            padded: Picture = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            return padded if padded.shape != pixels.shape else pixels
        import cv2

        scaled: Picture = cv2.resize(pixels, wanted[::-1], interpolation=cv2.INTER_AREA)
        return scaled

    def _failed(self, error: Any) -> MediaError:
        why = getattr(error, "strerror", None) or error
        return MediaError(f"'{without_password(str(self._target))}' cannot be written ({why})")


class GStreamerSink:
    """Pictures into a GStreamer pipeline, started anew when the size changes."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._push: GStreamerPush | None = None
        self._size = (0, 0)

    def write(self, pixels: Picture, seconds: float) -> None:
        size = (pixels.shape[1], pixels.shape[0])
        if self._push is None or size != self._size:
            self.close()
            self._push, self._size = GStreamerPush(self._pipeline, size), size
        self._push.write(pixels)

    def close(self) -> None:
        push, self._push = self._push, None
        if push is not None:
            push.close()


class PictureFolder:
    """One PNG for each frame, numbered; each appears whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def write(self, pixels: Picture, seconds: float) -> None:
        write_image(self._folder / f"{self._count:08d}.png", pixels)
        self._count += 1

    def close(self) -> None:
        """Each picture is finished when it is written."""


class Reopening:
    """A sink that may be away: frames are dropped until it is back, with growing pauses between the attempts.

    Args:
        make: a new sink for each attempt.
        pauses: how long to wait.
        now: seconds, for the pauses.
    """

    def __init__(
        self, make: Callable[[], LiveSink], pauses: Reconnect | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._pauses = pauses or Reconnect()
        self._now = now
        self._sink: LiveSink | None = None
        self._failures = 0
        self._next = 0.0
        self._reason = ""

    def write(self, pixels: Picture, seconds: float) -> None:
        if self._sink is None:
            if self._now() < self._next:
                raise SinkAwayError(self._reason)
            self._sink = self._make()
        try:
            self._sink.write(pixels, seconds)
        except MediaError as error:
            sink, self._sink = self._sink, None
            with suppress(MediaError):
                sink.close()
            self._failures += 1
            self._reason = str(error)
            self._next = self._now() + self._pauses.delay(self._failures)
            raise SinkAwayError(self._reason) from error
        self._failures = 0

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()


class RainLog:
    """Lines of JSON, one for each frame: ``{"stream", "frame", "seconds", "rain", "gated"}``.

    Several streams may share one: a line is written in one piece.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def add(self, stream: str, index: int, seconds: float, rain: float | None, gated: bool) -> None:
        """``rain`` in [0, 1], None where it was not measured."""
        rounded = None if rain is None else round(rain, 4)
        line = {"stream": stream, "frame": index, "seconds": round(seconds, 4), "rain": rounded, "gated": gated}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def open_sink(target: str, codec: Codec = "h264", crf: int = 21) -> LiveSink:
    """The sink for a path, a folder (ends in ``/`` or exists), a URL, or a GStreamer pipeline (has `` ! ``, or starts
    with ``gst:`` for a single element such as ``gst:autovideosink``).

    Raises:
        UsageError: none of these.
    """
    if target.startswith("gst:") or " ! " in target:
        return Reopening(lambda: GStreamerSink(target.removeprefix("gst:")))
    if "://" in target and not target.startswith("file://"):
        Encoder(target, codec, crf)  # a scheme that does not exist is told now, not at the first frame
        return Reopening(lambda: Encoder(target, codec, crf))
    path = Path(target.removeprefix("file://"))
    if target.endswith("/") or path.is_dir():
        return PictureFolder(path)
    return Encoder(path, codec, crf)


def _partial(path: Path) -> Path:
    from derain.runtime.media.video_writer import require_video_suffix

    require_video_suffix(path)
    return path.with_name(f"{path.stem}.partial{path.suffix}")
