"""Raw pictures with their times in a pipe: Matroska, which both FFmpeg writes and GStreamer reads.

FFmpeg's muxer makes the header, but holds each frame back until the next one comes. So each frame's cluster is put
together here: EBML element identifiers and lengths as in RFC 8794 and RFC 9559.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.runtime.media.colour import Colour
from derain.runtime.media.items import Picture

_CLUSTER, _TIMESTAMP, _SIMPLE_BLOCK = b"\x1f\x43\xb6\x75", b"\xe7", b"\xa3"
# Track 1, at the cluster's own time, a key frame.
_BLOCK_HEAD = b"\x81\x00\x00\x80"


class RawVideo:
    """A stream of one size, in BT.709 or BT.601 as its size suggests, planar 4:2:0.

    Args:
        width, height: even.
        rate: nominal frames a second.
    """

    def __init__(self, width: int, height: int, rate: int) -> None:
        self._colour = Colour.of_size(width, height)
        self._size, self._rate = (width, height), rate

    def header(self) -> bytes:
        """What comes before the first frame."""
        import av

        file = io.BytesIO()
        container = av.open(file, "w", format="matroska", options={"live": "1"})
        stream = container.add_stream("rawvideo", rate=self._rate)
        stream.width, stream.height, stream.pix_fmt = *self._size, "yuv420p"
        self._colour.tag(stream.codec_context)
        container.start_encoding()
        head = file.getvalue()
        container.close()
        return head

    def frame(self, pixels: Picture, milliseconds: int) -> list[bytes | memoryview]:
        """A picture uint8 (height, width, 3) BGR at its time: two pieces, to be written one after the other."""
        data = _in_rows_of_four(self._colour.from_bgr(pixels, "yuv420p")).data
        time = _TIMESTAMP + b"\x88" + struct.pack(">Q", milliseconds)
        block = _SIMPLE_BLOCK + _length(len(_BLOCK_HEAD) + len(data)) + _BLOCK_HEAD
        return [_CLUSTER + _length(len(time) + len(block) + len(data)) + time + block, data]


def _in_rows_of_four(frame: Any) -> NDArray[np.uint8]:
    """The planes of an ``av.VideoFrame`` as GStreamer expects them: each row filled up to a multiple of four bytes."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # FFmpeg fills up to more than that
        planes.append(rows[: plane.height, : (plane.width + 3) // 4 * 4].reshape(-1))
    return np.concatenate(planes)


def _length(size: int) -> bytes:
    """An EBML length in its form of eight bytes."""
    return struct.pack(">Q", size | 1 << 56)
