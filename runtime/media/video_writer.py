"""A video file as a sink: encoded with the timestamps of the source, and its sound untouched beside it."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from derain.errors import MediaError, UsageError
from derain.files import atomic_path
from derain.runtime.media.codecs import Codec, add_encoder, require_crf, usual_scheduling
from derain.runtime.media.items import Frame, Passenger, Picture
from derain.runtime.media.video_reader import VideoInfo

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
_PIXELS = "yuv420p"
# Facts of the source's container that are not true of the one written.
_OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}


def require_video_suffix(path: Path) -> None:
    """Refuse a file name that no writer serves.

    Raises:
        UsageError: the suffix is not one of ``VIDEO_SUFFIXES``.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(
            f"'{path}' has the suffix '{path.suffix}', which is no video format derain writes",
            expected="one of " + ", ".join(VIDEO_SUFFIXES),
        )


class VideoWriter:
    """Writes frames with their timestamps, and the packets of sound and subtitles bit for bit.

    The file appears under its name when the block ends well, and not at all when it does not. Timestamps are exact in
    MP4 and MOV; Matroska stores whole milliseconds. Video in the form that all players show (4:2:0) has even sides: an
    odd side is padded by one pixel, and a warning says so.

    Args:
        path: ``.mp4``, ``.mkv`` or ``.mov``.
        info: of the source; its ``width`` and ``height`` are those of the pictures that will be written.
        crf: the encoder's constant rate factor, 0 (finest) to 51 (AV1: 63); 18 is visually transparent.
        sound: whether to store the source's sound and subtitles.
        codec: what to encode.

    Raises:
        UsageError: another suffix, or a ``crf`` out of range.
        MediaError: on entering: the format has no place for the source's sound; later: writing failed.
    """

    def __init__(
        self, path: str | Path, info: VideoInfo, crf: int = 18, sound: bool = True, codec: Codec = "h264"
    ) -> None:
        self.path = Path(path)
        self.info = info
        self.warnings: list[str] = []
        require_video_suffix(self.path)
        require_crf(codec, crf)
        self._crf = crf
        self._codec: Codec = codec
        self._sound = sound
        self._durations: dict[int, int] = {}
        self._last_duration = 0
        self._frames = 0

    def __enter__(self) -> VideoWriter:
        import av

        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            # Edit lists, which hold a first frame later than zero, count in the movie's time scale.
            scale = str(self.info.time_base.denominator)
            options = {} if self.path.suffix.lower() == ".mkv" else {"movie_timescale": scale}
            try:
                self._container = av.open(f"file:{temporary}", "w", options=options)
            except av.error.FFmpegError as error:
                raise self._failed(error) from error
            stack.push(self._close)
            self._stream = self._add_video()
            self._carried = self._add_carried() if self._sound else {}
            own = {key: value for key, value in self.info.metadata.items() if key not in _OWN_METADATA}
            self._container.metadata.update(own)
            try:
                with usual_scheduling():
                    self._container.start_encoding()
            except av.error.FFmpegError as error:
                raise self._failed(error) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, pixels: Picture, frame: Frame) -> None:
        """Encode a uint8 (H, W, 3) BGR picture, upright, at the time of ``frame``."""
        stored = self.info.orientation.stored(pixels) if self._keeps_orientation else pixels
        if stored.shape[:2] != self._padded:
            down, right = self._padded[0] - stored.shape[0], self._padded[1] - stored.shape[1]
            stored = np.pad(stored, ((0, down), (0, right), (0, 0)), mode="edge")
        picture = self.info.colour.from_bgr(stored, _PIXELS)
        picture.pts = frame.pts
        picture.time_base = self.info.time_base
        if frame.pts is not None and frame.duration:
            self._durations[frame.pts] = self._last_duration = frame.duration
        self._mux_encoded(picture)
        self._frames += 1

    def carry(self, passenger: Passenger) -> None:
        """Store a packet of sound or subtitles as it is."""
        import av

        packet = passenger.packet
        stream = self._carried.get(packet.stream.index)
        if stream is None:
            return
        packet.stream = stream
        try:
            self._container.mux_one(packet)
        except av.error.FFmpegError as error:
            raise self._failed(error) from error

    def _add_video(self) -> Any:
        info = self.info
        stream = add_encoder(self._container, self._codec, info.rate, self._crf)
        # Older PyAV cannot write the display matrix; then the pixels themselves are stored upright.
        self._keeps_orientation = info.orientation.matrix is not None and hasattr(stream, "set_display_matrix")
        width, height, aspect = info.width, info.height, info.aspect
        if self._keeps_orientation:
            stream.set_display_matrix(info.orientation.matrix)
            if info.orientation.swaps_sides:
                width, height = height, width
        elif info.orientation.matrix is not None:
            aspect = info.shown(width, height).aspect
            self.warnings.append("The frames were stored upright, because this PyAV cannot write a rotation.")
        self._padded = (height + height % 2, width + width % 2)
        if self._padded != (height, width):
            self.warnings.append(
                f"{width} x {height} was padded to {self._padded[1]} x {self._padded[0]}: 4:2:0 needs even sides."
            )
        stream.height, stream.width = self._padded
        stream.time_base = info.time_base
        stream.codec_context.time_base = info.time_base
        if aspect:
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        info.colour.tag(stream.codec_context)
        return stream

    def _add_carried(self) -> dict[int, Any]:
        carried = {}
        for source in self.info.carried:
            try:
                stream = self._container.add_stream_from_template(source)
            except ValueError as error:
                kind, codec = source.type, source.codec_context.name
                if kind == "audio":
                    raise MediaError(
                        f"{self.path.suffix} has no place for the video's sound ('{codec}')",
                        fix=f"Write to '{self.path.with_suffix('.mkv').name}' instead",
                    ) from error
                self.warnings.append(f"{self.path.suffix} has no place for the subtitles ('{codec}'): left out.")
                continue
            stream.metadata.update(source.metadata)
            stream.disposition = source.disposition
            carried[source.index] = stream
        return carried

    def _mux_encoded(self, picture: Any | None) -> None:
        import av

        try:
            packets = self._stream.encode(picture)
            for packet in packets:
                packet.duration = self._durations.pop(packet.pts, packet.duration)
            if picture is None and packets and self.path.suffix.lower() != ".mkv":
                # MP4 takes lengths from the next sample's time; only that of the last one stored counts, whose place in
                # time may be earlier: it ends the track with the length of the frame shown last.
                packets[-1].duration = self._last_duration or packets[-1].duration
            for packet in packets:
                self._container.mux_one(packet)
        except av.error.FFmpegError as error:
            raise self._failed(error) from error

    def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import av

        try:
            if kind is None:
                self._finish()
        finally:
            # After an error, that error is what the user must see; closing twice is harmless.
            with suppress(av.error.FFmpegError):
                self._container.close()

    def _finish(self) -> None:
        import av

        if not self._frames:
            raise MediaError(f"No frame came for '{self.path}'", fix="Check the source")
        self._mux_encoded(None)
        try:
            self._container.close()
        except av.error.FFmpegError as error:
            raise self._failed(error) from error

    def _failed(self, error: Any) -> MediaError:
        return MediaError(
            f"'{self.path}' cannot be written ({error.strerror or error})",
            fix="Check the free space and the permissions of its folder",
        )
