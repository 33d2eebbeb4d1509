"""Tiny videos made on the spot, and ways to look at what came out."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

TIME_BASE = Fraction(1, 90000)
REGULAR = tuple(range(0, 24 * 3600, 3600))
# 25, 50 and 12.5 frames a second in turns, starting later than zero.
VARIABLE = tuple(int(t) for t in 4511 + np.cumsum([0, *([3600, 1800, 7200, 3601] * 5)]))


def scene(index: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """A smooth picture whose brightness tells its index, red in the upper left corner, blue in the lower right."""
    picture = np.full((height, width, 3), 40 + 6 * index % 180, np.uint8)
    picture[: height // 4, : width // 4] = (0, 0, 250)
    picture[-(height // 4) :, -(width // 4) :] = (250, 0, 0)
    return picture


def yuv420(bgr: NDArray[np.uint8], space: int, span: int) -> NDArray[np.uint8]:
    """BGR to planar 4:2:0 by the equations of BT.709 (space 1) or BT.601, independent of FFmpeg's converter."""
    red_share, blue_share = (0.2126, 0.0722) if space == 1 else (0.299, 0.114)
    blue, green, red = (bgr[..., i].astype(np.float64) / 255 for i in range(3))
    luma = red_share * red + (1 - red_share - blue_share) * green + blue_share * blue
    chroma = [(blue - luma) / (2 - 2 * blue_share), (red - luma) / (2 - 2 * red_share)]
    height, width = luma.shape
    coarse = [c.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for c in chroma]
    y, uv = (16 + 219 * luma, [128 + 224 * c for c in coarse])
    if span == 2:
        y, uv = 255 * luma, [128 + 255 * c for c in coarse]
    planes = np.concatenate([y.ravel(), uv[0].ravel(), uv[1].ravel()])
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8).reshape(height * 3 // 2, width)


def make_video(
    path: Path,
    times: Sequence[int] = REGULAR,
    *,
    size: tuple[int, int] = (96, 64),
    rotation: int = 0,
    mirrored: bool = False,
    sound: str | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    colour: tuple[int, int] = (1, 1),
    noise: int = 0,
    last: int = 0,
    still: NDArray[np.uint8] | None = None,
) -> Path:
    """Write frames at ``times`` (in 1/90000 s); ``colour``: (AVCOL_SPC, AVCOL_RANGE); ``last``: the last duration.

    Each is a :func:`scene` of its own, or all are ``still``, (H, W, 3) BGR.
    """
    width, height = size
    # The index in front, so that a cut-off file can be opened; a first frame later than zero to the exact tick.
    mp4 = {"movflags": "faststart", "movie_timescale": str(TIME_BASE.denominator)}
    with av.open(str(path), "w", options=mp4 if path.suffix in (".mp4", ".mov") else {}) as container:
        video = container.add_stream(codec, rate=25, options={"crf": "10", **(options or {})})
        video.width, video.height, video.pix_fmt = width, height, pixels
        if codec == "libx264":
            video.time_base = TIME_BASE
            video.codec_context.time_base = TIME_BASE
        video.codec_context.colorspace, video.codec_context.color_range = colour
        if rotation or mirrored:
            video.set_display_rotation(rotation, mirrored)
        audio = container.add_stream(sound, rate=44100, layout="mono") if sound else None
        if audio is not None:
            # As long as the pictures: where sound ends early, the muxer holds pictures back for ten seconds.
            samples = int(1024 * np.ceil(times[-1] / 90000 * 44100 / 1024))
            wave = (8000 * np.sin(np.arange(samples) / 20)).astype(np.int16)
            resampler = av.AudioResampler(audio.codec_context.format, "mono", 44100)
            for start in range(0, wave.size, 1024):
                block = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "s16", "mono")
                block.sample_rate, block.pts, block.time_base = 44100, start, Fraction(1, 44100)
                for resampled in resampler.resample(block):
                    container.mux(audio.encode(resampled))
            container.mux(audio.encode(None))
        for index, time in enumerate(times):
            picture = scene(index, width, height) if still is None else still
            if noise:
                picture = picture // 2 + np.random.default_rng(index).integers(0, noise, picture.shape, np.uint8)
            if pixels == "yuv420p":
                frame = av.VideoFrame.from_ndarray(yuv420(picture, *colour), "yuv420p")
            else:
                frame = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format=pixels)
            frame.colorspace, frame.color_range = colour
            frame.pts, frame.time_base = time, TIME_BASE
            container.mux(video.encode(frame))
        packets = video.encode(None)
        if last:
            packets[-1].duration = last
        container.mux(packets)
    return path


def times_of(path: Path) -> list[Fraction]:
    """Presentation time of every frame, seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * Fraction(frame.time_base) for frame in container.decode(video=0)]


def sound_of(path: Path) -> list[tuple[Fraction, bytes]]:
    """Time and bytes of every packet of sound."""
    with av.open(str(path)) as container:
        return [(p.pts * Fraction(p.time_base), bytes(p)) for p in container.demux(audio=0) if p.size]


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    """Decoded frames as stored, uint8 BGR."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def matrix_of(path: Path) -> tuple[int, ...] | None:
    """The display matrix, None when there is none."""
    with av.open(str(path)) as container:
        data = next(container.decode(video=0)).side_data.get("DISPLAYMATRIX")
        return None if data is None else tuple(np.frombuffer(bytes(data), np.int32).tolist())
