"""Recordings by a Jetson's hardware encoder, through its GStreamer elements.

Made from NVIDIA's accelerated GStreamer guide; not run on hardware. The pipeline around the encoder is tested with
x264 in its place.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from derain.errors import MediaError, UsageError
from derain.runtime.live.encoder import even_size, fitted, free_partial
from derain.runtime.live.gstreamer import GStreamerPush
from derain.runtime.media.codecs import Codec
from derain.runtime.media.items import Picture
from derain.runtime.media.video_writer import require_video_suffix

_ELEMENTS: dict[Codec, tuple[str, str]] = {
    "h264": ("nvv4l2h264enc", "h264parse"),
    "h265": ("nvv4l2h265enc", "h265parse"),
}
_BOARD = Path("/proc/device-tree/model")
# Bits for a pixel: 6 Mbit/s at 1080p and 30 frames a second. The encoder knows no constant quality.
_BITS = 0.1
_LEAST_BITS = 1_000_000
# As for recordings by FFmpeg: what a kill or a full disk can cost is a second.
_FRAGMENT_MILLISECONDS = 1000


def encode(size: tuple[int, int], codec: Codec, rate: int) -> str:
    """The part of a pipeline that encodes, from ``video/x-raw`` to a parsed stream.

    Args:
        size: width and height.
        codec: ``h264`` or ``h265``.
        rate: frames a second, for the number of bits.
    """
    encoder, parser = _ELEMENTS[codec]
    bits = max(_LEAST_BITS, round(_BITS * size[0] * size[1] * rate))
    return (
        f"nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! {encoder} bitrate={bits} insert-sps-pps=true "
        f"iframeinterval={2 * rate} ! {parser}"
    )


def mux(path: Path) -> str:
    """The part of a pipeline that writes a file, so that it can be played at any moment."""
    muxer = "matroskamux" if path.suffix.lower() == ".mkv" else f"mp4mux fragment-duration={_FRAGMENT_MILLISECONDS}"
    return f'{muxer} ! filesink location="{path}"'


def require_encoder(codec: Codec) -> None:
    """Make sure that this machine has the hardware encoder.

    Raises:
        UsageError: Jetsons do not encode this codec.
        MediaError: it has none.
    """
    if codec not in _ELEMENTS:
        raise UsageError(f"A Jetson's encoder is asked for '{codec}'", expected=f"one of: {', '.join(_ELEMENTS)}")
    fix = "Give the file's name without jetson:, and x264 encodes"
    board = ""
    with suppress(OSError):
        board = _BOARD.read_text(errors="replace").strip("\0 \n")
    if "Orin Nano" in board:
        raise MediaError(f"This board, '{board}', has no hardware encoder", fix=fix)
    inspect, element = shutil.which("gst-inspect-1.0"), _ELEMENTS[codec][0]
    if inspect is None or subprocess.run([inspect, "--exists", element], check=False).returncode != 0:
        raise MediaError(
            f"GStreamer has no element '{element}' here", expected="a Jetson with JetPack's GStreamer plugins", fix=fix
        )


class JetsonRecording:
    """H.264 or H.265 into a file, encoded by hardware, with the times the frames came.

    The file is called ``NAME.partial.SUFFIX`` until it is closed. A frame of another size than the first is scaled.

    Raises:
        UsageError, MediaError: as for :func:`require_encoder`, or a file that is no video.
    """

    def __init__(self, path: Path, codec: Codec = "h264", rate: int = 30) -> None:
        require_video_suffix(path)
        require_encoder(codec)
        self._path, self._codec, self._rate = path, codec, rate
        self._partial = path
        self._push: GStreamerPush | None = None
        self._size = (0, 0)

    def write(self, pixels: Picture, seconds: float) -> None:
        """As for every live sink; the time is that of the writing."""
        if self._push is None:
            self._size = even_size(pixels)
            try:
                self._partial = free_partial(self._path)
            except OSError as error:
                raise MediaError(f"'{self._path}' cannot be written ({error.strerror or error})") from error
            pipeline = f"{encode(self._size, self._codec, self._rate)} ! {mux(self._partial)}"
            self._push = GStreamerPush(pipeline, self._size, self._rate)
        self._push.write(fitted(pixels, *self._size))

    def close(self) -> None:
        """Finish the file; keeps everything written so far, also after an error."""
        push, self._push = self._push, None
        if push is None:
            return
        try:
            push.close()
        finally:
            if self._partial.exists():
                self._partial.replace(self._path)
