"""Where streams come from, as people write it: ``rtsp://...``, ``v4l2:///dev/video0``, ``csi://0``, a pipeline ..."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from derain.errors import UsageError
from derain.runtime.media.items import Source

Kind: TypeAlias = Literal["file", "fifo", "v4l2", "csi", "network", "gstreamer"]
_NETWORK = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp", "srt")
_SCHEME = re.compile(r"([a-z][a-z0-9+]*):")
_NAMED = re.compile(r"([A-Za-z][\w-]{0,39})=(.+)", re.DOTALL)
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_EXPECTED = (
    "a path, file://..., v4l2:///dev/videoN, csi://N, rtsp://..., http://..., or a GStreamer pipeline such as "
    "'v4l2src ! videoconvert'"
)


def without_password(text: str) -> str:
    """A text without the user and password that its URLs carry: what is shown or logged must not tell them."""
    return _USER.sub("", text)


@dataclass(frozen=True)
class Address:
    """One source.

    Attributes:
        name: for people; unique only if its writer made it so.
        kind: how it is opened.
        target: path, device, sensor number, URL or pipeline.
        size: width and height asked of a camera, None for its own choice.
        rate: frames a second asked of a camera.
    """

    name: str
    kind: Kind
    target: str
    size: tuple[int, int] | None = None
    rate: int | None = None

    @property
    def live(self) -> bool:
        """Whether it goes on for ever and does not wait for us."""
        return self.kind != "file"

    def open(self) -> Source:
        """A new source, not yet entered."""
        from derain.runtime.live.av_source import AvSource
        from derain.runtime.live.gstreamer import GStreamerSource, csi_pipeline

        if self.kind == "file":
            return _file_source(Path(self.target))
        if self.kind == "gstreamer":
            return GStreamerSource(self.target)
        if self.kind == "csi":
            return GStreamerSource(csi_pipeline(int(self.target), self.size, self.rate))
        if self.kind == "v4l2":
            options = {} if self.size is None else {"video_size": f"{self.size[0]}x{self.size[1]}"}
            return AvSource(self.target, "v4l2", options | ({} if self.rate is None else {"framerate": str(self.rate)}))
        # Over UDP a lost packet breaks every frame to the next key frame.
        options = {"rtsp_transport": "tcp"} if self.target.startswith("rtsp") else {}
        return AvSource(f"file:{self.target}" if self.kind == "fifo" else self.target, options=options)


def parse_address(text: str) -> Address:
    """Understand ``[NAME=]SOURCE``; nothing is opened.

    Cameras take ``?size=1280x720&fps=30``.

    Raises:
        UsageError: an unknown scheme, or a camera's number, size or rate that makes no sense.
    """
    named = _NAMED.fullmatch(text)
    name, rest = (named[1], named[2]) if named and "!" not in named[1] else ("", text)
    if " ! " in rest:
        return Address(name or "gst", "gstreamer", rest)
    scheme = _SCHEME.match(rest)
    if scheme is None or (scheme[1] == "file" and not rest.startswith("file://")):
        return _path(name, rest)
    parts = urlsplit(rest)
    if parts.scheme == "file":
        return _path(name, unquote(parts.path))
    if parts.scheme in _NETWORK:
        if not parts.hostname:
            raise UsageError(f"'{without_password(rest)}' names no host", expected=_EXPECTED)
        return Address(name or parts.hostname, "network", rest)
    if parts.scheme not in ("v4l2", "csi"):
        raise UsageError(f"'{without_password(rest)}' has the scheme '{parts.scheme}'", expected=_EXPECTED)
    size, rate = _camera_options(rest, parts.query)
    target = unquote(parts.path) if parts.scheme == "v4l2" else parts.netloc
    if parts.scheme == "v4l2" and not target.startswith("/dev/"):
        raise UsageError(f"'{rest}' names no device", expected="v4l2:///dev/video0")
    if parts.scheme == "csi" and not re.fullmatch(r"\d{1,2}", target):
        raise UsageError(f"'{rest}' names no sensor", expected="csi://0")
    default = Path(target).name if parts.scheme == "v4l2" else f"csi{target}"
    return Address(name or default, "v4l2" if parts.scheme == "v4l2" else "csi", target, size, rate)


def _path(name: str, text: str) -> Address:
    path = Path(text)
    try:
        fifo = stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        fifo = False
    return Address(name or path.stem or text, "fifo" if fifo else "file", text)


def _camera_options(text: str, query: str) -> tuple[tuple[int, int] | None, int | None]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    size, rate = options.pop("size", None), options.pop("fps", None)
    if options:
        raise UsageError(f"'{text}' has the option '{next(iter(options))}'", expected="size=1280x720 or fps=30")
    match = None if size is None else _SIZE.fullmatch(size)
    if size is not None and match is None:
        raise UsageError(f"'{text}' asks for the size '{size}'", expected="for example size=1280x720")
    if rate is not None and not re.fullmatch(r"[1-9]\d{0,3}", rate):
        raise UsageError(f"'{text}' asks for the rate '{rate}'", expected="whole frames a second, for example fps=30")
    return (int(match[1]), int(match[2])) if match else None, None if rate is None else int(rate)


def _file_source(path: Path) -> Source:
    from derain.images import IMAGE_SUFFIXES, list_images
    from derain.runtime.media.pictures import PictureSource
    from derain.runtime.media.video_reader import VideoReader

    if path.is_dir():
        return PictureSource(list_images(path))
    return PictureSource([path]) if path.suffix.lower() in IMAGE_SUFFIXES else VideoReader(path)
