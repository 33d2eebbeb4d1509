"""Between a video's YUV and BGR without a shift of colours, and the tags that tell players how to show it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from derain.runtime.media.items import Picture

# FFmpeg's numbers: AVCOL_SPC_* -> the name of PyAV's Colorspace; AVCOL_RANGE_JPEG.
_MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}
_FULL_RANGE = 2
_UNSPECIFIED = 2
_OF_THREAD = threading.local()


@dataclass(frozen=True)
class Colour:
    """A video's colour tags as FFmpeg numbers them (AVCOL_SPC, AVCOL_RANGE, AVCOL_PRI, AVCOL_TRC).

    The tags are written to the output as they were found, unspecified ones included.
    """

    space: int = _UNSPECIFIED
    range: int = 0
    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED

    @classmethod
    def of(cls, context: Any) -> Colour:
        """The tags of an ``av`` codec context. The old yuvj formats mean full range by their name."""
        primaries, transfer = int(context.color_primaries), int(context.color_trc)
        if context.format is None or context.format.is_rgb:
            # The output is YUV: tags of an RGB signal would be wrong on it.
            return cls(primaries=primaries, transfer=transfer)
        full = context.pix_fmt.startswith("yuvj")
        space = int(context.colorspace)
        return cls(
            space if space in _MATRICES else _UNSPECIFIED,
            _FULL_RANGE if full else int(context.color_range),
            primaries,
            transfer,
        )

    @classmethod
    def of_size(cls, width: int, height: int) -> Colour:
        """What players take an untagged video of that size for, written out: BT.709 for HD, BT.601 below, limited."""
        return cls(space=1 if width >= 1280 or height > 576 else 6, range=1)

    def tag(self, context: Any) -> None:
        """Write the tags to an ``av`` codec context."""
        context.colorspace = self.space
        context.color_range = self.range
        context.color_primaries = self.primaries
        context.color_trc = self.transfer

    def to_bgr(self, frame: Any, width: int, height: int) -> Picture:
        """An ``av.VideoFrame`` as uint8 (height, width, 3) BGR, scaled if it has another size."""
        from av.video.reformatter import ColorRange

        yuv = not frame.format.is_rgb
        converted = _reformatter("to_bgr").reformat(
            frame,
            width=width,
            height=height,
            format="bgr24",
            src_colorspace=self._matrix(width, height) if yuv else None,
            src_color_range=self._yuv_range() if yuv else None,
            dst_color_range=ColorRange.JPEG,
            interpolation=_exact_flags(),
        )
        array: Picture = converted.to_ndarray()
        return array

    def from_bgr(self, pixels: Picture, form: str) -> Any:
        """uint8 (H, W, 3) BGR as an ``av.VideoFrame`` of a YUV pixel format."""
        import av
        from av.video.reformatter import ColorRange

        return _reformatter("from_bgr").reformat(
            av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(pixels), format="bgr24"),
            format=form,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=self._matrix(pixels.shape[1], pixels.shape[0]),
            dst_color_range=self._yuv_range(),
            interpolation=_exact_flags(),
        )

    def _matrix(self, width: int, height: int) -> Any:
        """The YUV matrix; untagged video follows the players' rule: BT.709 for HD, BT.601 below."""
        from av.video.reformatter import Colorspace

        return Colorspace[_MATRICES.get(self.space, "ITU709" if width >= 1280 or height > 576 else "ITU601")]

    def _yuv_range(self) -> Any:
        from av.video.reformatter import ColorRange

        return ColorRange.JPEG if self.range == _FULL_RANGE else ColorRange.MPEG


def _reformatter(direction: str) -> Any:
    """This thread's converter for one direction. A frame's own one would start swscale's threads for each frame anew,
    and a frame whose side data was read holds it until the garbage collector comes.
    """
    from av.video.reformatter import VideoReformatter

    if not hasattr(_OF_THREAD, direction):
        setattr(_OF_THREAD, direction, VideoReformatter())
    return getattr(_OF_THREAD, direction)


def _exact_flags() -> int:
    """Flags for swscale. Its defaults darken a picture by 1 to 2.5 levels and cost 8 dB on a round trip (measured)."""
    from av.video.reformatter import Interpolation

    return int(
        Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    )
