"""A video file as a source: frames with their exact timestamps, and sound and subtitles as packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from derain.errors import MediaError
from derain.files import check_size
from derain.runtime.media.colour import Colour
from derain.runtime.media.items import Frame, Item, Passenger, Picture
from derain.runtime.media.orientation import Orientation

_MAX_BYTES = 1 << 50
_MAX_PIXELS = 16384 * 16384
# Demuxers that take a text or any file for a picture or a video.
_NOT_MEDIA = {"tty", "lavfi", "bin", "xbin", "adf", "idf", "ffmetadata", "concat"}


@dataclass(frozen=True)
class VideoInfo:
    """What a writer must know to make a video like the one read.

    Attributes:
        width, height: of the upright frames, pixels.
        time_base: seconds per unit of ``Frame.pts``.
        rate: average frames a second; frames may still come irregularly.
        aspect: of a pixel, width to height as stored; 0 when unknown.
        carried: the streams (``av``) whose packets the reader gives as passengers.
        metadata: title, creation time and so on.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    aspect: Fraction
    colour: Colour
    orientation: Orientation
    carried: tuple[Any, ...]
    metadata: dict[str, str]

    def shown(self, width: int, height: int) -> VideoInfo:
        """The same for pictures of another size that are stored as they are shown."""
        aspect = 1 / self.aspect if self.orientation.swaps_sides and self.aspect else self.aspect
        return replace(self, width=width, height=height, aspect=aspect, orientation=Orientation())


class VideoReader:
    """Reads the main video stream of a file; give it to one thread.

    A frame that cannot be decoded is left out and counted; a file that ends early gives what is there. Both end up in
    ``warnings``.

    Raises:
        MediaError: on entering: missing, empty, not a video, or without a frame that can be decoded.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        self.frame_count: int | None = None
        self.damaged = 0
        self._rescaled = 0

    def __enter__(self) -> VideoReader:
        import av

        check_size(self.path, _MAX_BYTES, MediaError)
        try:
            # The prefix keeps names such as 'a:b.mp4' from being read as a protocol.
            self._container = av.open(f"file:{self.path}", metadata_errors="replace")
        except av.error.FFmpegError as error:
            raise self._unreadable(error.strerror) from error
        try:
            self._stream = self._main_stream()
            self.info = self._read_info()
        except BaseException:
            self._container.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Item]:
        index = 0
        whole = False
        try:
            for item in self._items():
                if isinstance(item, Passenger):
                    yield item
                else:
                    yield self._frame(item, index)
                    index += 1
            whole = True
        finally:  # the consumer may leave early
            self._report(index, whole)

    def _main_stream(self) -> Any:
        pictures = [s for s in self._container.streams.video if not s.disposition & _attached_picture()]
        if self._container.format.name in _NOT_MEDIA or not pictures:
            raise MediaError(
                f"'{self.path}' holds no video", expected="a video file, a picture or a folder of pictures"
            )
        stream = pictures[0]
        context = stream.codec_context
        if context is None:
            raise self._unreadable("no decoder for its codec in this FFmpeg")
        if not 0 < context.width * context.height <= _MAX_PIXELS:
            raise self._unreadable(f"it claims frames of {context.width} x {context.height} pixels")
        stream.thread_type = "AUTO"
        return stream

    def _read_info(self) -> VideoInfo:
        """The first frame tells what the container's header may not: the display matrix and the true pixel format."""
        self._pending: list[Any] = []
        self._packets: Iterator[Any] = iter(self._container.demux(*self._wanted_streams()))
        self._expected = self._stream.frames or None
        self._received = 0
        self._cut_off: str | None = None
        while not any(not isinstance(item, Passenger) for item in self._pending):
            more = self._next_items()
            if more is None:
                raise self._unreadable(self._cut_off or "it has no frame that can be decoded")
            self._pending += more
        first = next(item for item in self._pending if not isinstance(item, Passenger))
        stream, context = self._stream, self._stream.codec_context
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        matrix = first.side_data.get("DISPLAYMATRIX") if first.side_data else None
        orientation = Orientation() if matrix is None else Orientation.from_side_data(bytes(matrix))
        width, height = first.width, first.height
        self._stored_size = (width, height)
        self._colour = Colour.of(context)
        self._time_base = Fraction(stream.time_base)
        self._step = max(1, round(1 / (rate * self._time_base)))
        self._last_pts: int | None = None
        if self._expected is None and self._container.duration:
            self.frame_count = max(1, round(self._container.duration / 1e6 * rate))
        else:
            self.frame_count = self._expected
        if first.format.components and max(part.bits for part in first.format.components) > 8:
            self.warnings.append("The video has more than 8 bits per channel; the result has 8.")
        if first.interlaced_frame:
            self.warnings.append("The video is interlaced; its frames were treated as progressive.")
        swapped = orientation.swaps_sides
        return VideoInfo(
            width=height if swapped else width,
            height=width if swapped else height,
            time_base=self._time_base,
            rate=rate,
            aspect=Fraction(stream.sample_aspect_ratio or 0),
            colour=self._colour,
            orientation=orientation,
            carried=tuple(self._carried),
            metadata=dict(self._container.metadata),
        )

    def _wanted_streams(self) -> list[Any]:
        self._carried = [
            stream
            for stream in (*self._container.streams.audio, *self._container.streams.subtitles)
            if stream.codec_context is not None
        ]
        return [self._stream, *self._carried]

    def _items(self) -> Iterator[Any]:
        yield from self._pending
        self._pending = []
        while (more := self._next_items()) is not None:
            yield from more

    def _next_items(self) -> list[Any] | None:
        """Passengers or decoded ``av`` frames of the next packet; None at the end."""
        import av

        try:
            packet = next(self._packets, None)
        except av.error.FFmpegError as error:
            self._cut_off = error.strerror or str(error)
            packet = av.Packet()  # an empty packet makes the decoder give what it still holds
            packet.stream = self._stream
            self._packets = iter(())
        if packet is None:
            return None
        if packet.stream is not self._stream:
            return [Passenger(packet)] if packet.dts is not None else []
        if packet.size and packet.is_discard:
            self._received += 1  # an edit list hides it: it is not missing
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            self.damaged += 1
            return []
        good = [frame for frame in frames if not frame.is_corrupt]
        self.damaged += len(frames) - len(good)
        self._received += len(frames)
        return good

    def _frame(self, decoded: Any, index: int) -> Frame:
        width, height = self._stored_size
        self._rescaled += (decoded.width, decoded.height) != self._stored_size
        stored: Picture = self._colour.to_bgr(decoded, width, height)
        pts = decoded.pts
        last = self._last_pts
        if pts is None or (last is not None and pts <= last):
            # Raw and damaged streams have frames without a time, or with one that goes back.
            pts = 0 if last is None else last + (self._step if pts is None else 1)
        self._last_pts = pts
        upright = self.info.orientation.upright(stored)
        return Frame(upright, index, pts=pts, duration=int(decoded.duration or 0), seconds=float(pts * self._time_base))

    def _report(self, frames: int, whole: bool) -> None:
        if self.damaged:
            self.warnings.append(f"{self.damaged} damaged frames or packets of '{self.path}' were left out.")
        if self._rescaled:
            width, height = self._stored_size
            self.warnings.append(f"{self._rescaled} frames had another size and were scaled to {width} x {height}.")
        missing = (self._expected or 0) - self._received - self.damaged
        if self._cut_off or (whole and missing > 0):
            announced = f" of {self._expected}" if self._expected else ""
            self.warnings.append(f"'{self.path}' is cut off or damaged: {frames}{announced} frames could be read.")

    def _unreadable(self, why: str | None) -> MediaError:
        return MediaError(
            f"'{self.path}' cannot be read as a video ({why or 'no reason given'})",
            expected="a video file that FFmpeg can decode",
            fix="If it was cut off while recording or copying, copy it again or repair its index first",
        )


def _attached_picture() -> int:
    """Disposition flag of cover art, which is a video stream to FFmpeg."""
    from av.stream import Disposition

    return int(Disposition.attached_pic)
