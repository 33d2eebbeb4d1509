"""Live video through FFmpeg: V4L2 cameras, RTSP and HTTP streams, FIFOs and pipes."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from derain.errors import MediaError
from derain.runtime.live.addresses import without_password
from derain.runtime.media.colour import Colour
from derain.runtime.media.items import Frame, Item

_MAX_PIXELS = 16384 * 16384
OPEN_SECONDS, READ_SECONDS = 10.0, 10.0
# Finding out what a stream holds must not take longer; what is read meanwhile is not lost (`nobuffer` would lose it).
_ANALYSIS = {"analyzeduration": "1000000"}


class AvSource:
    """The first video stream of something FFmpeg opens, frame by frame as it comes; sound is left alone.

    One that has a length, such as a file on a web server, is ``finite``: it waits, and its frames have their own times.
    A frame that cannot be decoded is counted in ``damaged`` and left out. A change of resolution gives frames of the
    new size.

    Args:
        where: a URL, a device, or an open binary file such as a pipe.
        form: FFmpeg's name of the format, None to find out.
        options: for FFmpeg's demuxer.
        colour: the colour encoding, None to take it from the stream.
        name: for messages, None for ``where``.

    Raises:
        MediaError: on entering: cannot be opened or has no video; while iterating: the connection was lost.
    """

    frame_count: int | None = None
    finite = False

    def __init__(
        self,
        where: Any,
        form: str | None = None,
        options: dict[str, str] | None = None,
        *,
        colour: Colour | None = None,
        name: str | None = None,
    ) -> None:
        self._where, self._form, self._options, self._colour = where, form, options or {}, colour
        self.name = name or without_password(str(where))
        self.warnings: list[str] = []
        self.damaged = 0

    def __enter__(self) -> AvSource:
        import av

        try:
            self._container = av.open(
                self._where,
                format=self._form,
                options={**_ANALYSIS, **self._options},
                timeout=None if hasattr(self._where, "read") else (OPEN_SECONDS, READ_SECONDS),
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, OSError) as error:
            raise self._lost("cannot be opened", error) from error
        if not self._container.streams.video or self._container.streams.video[0].codec_context is None:
            self._container.close()
            raise MediaError(f"'{self.name}' has no video that this FFmpeg decodes", expected="a video stream")
        self._stream: Any = self._container.streams.video[0]
        # A file on a web server tells how long it is; cameras and what other programs write do not.
        self.finite = "://" in str(self._where) and (self._container.duration or 0) > 0
        self._stream.thread_type = "SLICE"  # frame threading would hold as many frames back as there are threads
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Item]:
        import av

        index = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                raise self._lost("was lost", error) from error
            if packet is None:
                return
            for decoded in self._decode(packet):
                yield self._frame(decoded, index)
                index += 1

    def _decode(self, packet: Any) -> list[Any]:
        import av

        try:
            frames = packet.decode()
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.damaged += 1
            return []
        good = [frame for frame in frames if not frame.is_corrupt and 0 < frame.width * frame.height <= _MAX_PIXELS]
        self.damaged += len(frames) - len(good)
        return good

    def _frame(self, decoded: Any, index: int) -> Frame:
        colour = self._colour or Colour.of(self._stream.codec_context)
        pixels = colour.to_bgr(decoded, decoded.width, decoded.height)
        own = float(decoded.pts * self._stream.time_base) if self.finite and decoded.pts is not None else None
        return Frame(pixels, index, pts=decoded.pts, duration=int(decoded.duration or 0), seconds=own)

    def _lost(self, what: str, error: Exception) -> MediaError:
        why = getattr(error, "strerror", None) or str(error)
        return MediaError(f"'{self.name}' {what} ({without_password(why)})")
