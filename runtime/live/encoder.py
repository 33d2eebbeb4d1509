"""Live recordings and pushed streams: files that survive a kill, and servers, both by FFmpeg's encoders."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from derain.errors import MediaError, UsageError
from derain.runtime.live.addresses import without_password
from derain.runtime.media.codecs import Codec, add_encoder, require_crf, usual_scheduling
from derain.runtime.media.colour import Colour
from derain.runtime.media.items import Picture
from derain.runtime.media.video_writer import require_video_suffix

_TIME_BASE = Fraction(1, 90000)
_KEY_FRAMES = 60
# Fragments of a second, each handed to the system at once: that much a kill, a power cut or a full disk can cost.
_FRAGMENTS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}
_PUSH_FORMATS = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "srt": "mpegts", "udp": "mpegts", "tcp": "mpegts"}


class Encoder:
    """H.264, H.265 or AV1 into a file or to a server, with the times the frames came.

    A file is called ``NAME.partial.SUFFIX`` until it is closed, and is playable at any moment, after a kill as well;
    one that an earlier kill left is not touched. A frame of another size than the first is scaled to it.

    Args:
        target: ``.mp4``, ``.mov`` or ``.mkv``, or a URL: ``rtmp://``, ``rtsp://``, ``srt://``, ``udp://``.
        codec: what to encode.
        crf: quality, as the encoder counts it; smaller is better.

    Raises:
        UsageError: a target, or a quality, that makes no sense.
    """

    def __init__(self, target: str | Path, codec: Codec = "h264", crf: int = 21) -> None:
        require_crf(codec, crf)
        self._target = target
        self._codec: Codec = codec
        self._crf = crf
        self._scheme = str(target).partition("://")[0] if "://" in str(target) else ""
        self._container: Any = None
        self._partial: Path | None = None
        self._last = -1
        self._begin = 0.0
        if not self._scheme:
            require_video_suffix(Path(target))
        elif self._scheme not in _PUSH_FORMATS:
            raise UsageError(
                f"'{without_password(str(target))}' has the scheme '{self._scheme}'",
                expected="one of " + ", ".join(_PUSH_FORMATS),
            )

    def write(self, pixels: Picture, seconds: float) -> None:
        import av

        try:
            if self._container is None:
                self._open(pixels, seconds)
            frame = self._colour.from_bgr(fitted(pixels, *self._size), "yuv420p")
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
        """Open the file or connect to the server: here, and not when the first packet is ready, many frames later."""
        import av

        fragmented = not self._scheme and not str(self._target).lower().endswith(".mkv")
        # As for reading: over UDP a lost packet breaks every frame to the next key frame.
        transport = {"rtsp_transport": "tcp"} if self._scheme == "rtsp" else {}
        options = (_FRAGMENTS if fragmented else {}) | transport | {"flush_packets": "1"}
        if not self._scheme:
            self._partial = free_partial(Path(self._target))
        where = str(self._target) if self._partial is None else f"file:{self._partial}"
        form = _PUSH_FORMATS.get(self._scheme)
        container = av.open(where, "w", format=form, options=options, timeout=10.0 if self._scheme else None)
        try:
            tune = {"tune": "zerolatency"} if self._scheme and self._codec != "av1" else {}
            stream = add_encoder(container, self._codec, 30, self._crf, **tune)
            stream.width, stream.height = even_size(pixels)
            stream.time_base = stream.codec_context.time_base = _TIME_BASE
            stream.codec_context.gop_size = _KEY_FRAMES
            # B-frames would shift the times of a fragmented file, and delay what is pushed.
            stream.codec_context.max_b_frames = 0
            self._colour = Colour.of_size(stream.width, stream.height)
            self._colour.tag(stream.codec_context)
            with usual_scheduling():
                container.start_encoding()
        except BaseException:
            with suppress(av.error.FFmpegError, OSError):
                container.close()
            raise
        self._size = (stream.width, stream.height)
        self._container, self._stream, self._begin, self._last = container, stream, seconds, -1

    def _failed(self, error: Any) -> MediaError:
        why = getattr(error, "strerror", None) or error
        return MediaError(f"'{without_password(str(self._target))}' cannot be written ({why})")


def free_partial(path: Path) -> Path:
    """The name of a recording until it is closed: ``NAME.partial.SUFFIX``, or with a number where that one exists.

    Its folder is made where it is missing.

    Raises:
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number, partial = 1, path.with_name(f"{path.stem}.partial{path.suffix}")
    while partial.exists():
        number += 1
        partial = path.with_name(f"{path.stem}.partial-{number}{path.suffix}")
    return partial


def even_size(pixels: Picture) -> tuple[int, int]:
    """Width and height of the recording that holds a picture: 4:2:0 needs even sides."""
    height, width = pixels.shape[:2]
    return width + width % 2, height + height % 2


def fitted(pixels: Picture, width: int, height: int) -> Picture:
    """A picture in a recording's even size: padded by a pixel where a side is odd, scaled where it has another size."""
    found_height, found_width = pixels.shape[:2]
    down, right = found_height % 2, found_width % 2
    if (found_width + right, found_height + down) == (width, height):
        padded: Picture = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge") if down or right else pixels
        return padded
    import cv2

    scaled: Picture = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return scaled
