"""The kind, size and completeness of a picture file, from its bytes alone.

Decoders differ in what they do with a file that was cut off: some fill the rest with grey and report success. They also
allocate what the header claims. Both are settled here, before a decoder sees the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageHeader:
    """What a file claims to be. ``whole`` is False when its end is missing, as far as the format tells."""

    kind: str
    width: int
    height: int
    whole: bool


def read_header(data: bytes) -> ImageHeader | None:
    """The header of a PNG, JPEG, WebP, BMP or TIFF file; None when ``data`` is none of these or ends in its header."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
    except (struct.error, IndexError):
        return None
    return None


def _png(data: bytes) -> ImageHeader | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    offset = 8
    while offset + 12 <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        if data[offset + 4 : offset + 8] == b"IEND":
            return ImageHeader("PNG", width, height, True)
        offset += 12 + length
    return ImageHeader("PNG", width, height, False)


def _jpeg(data: bytes) -> ImageHeader | None:
    offset, width, height = 2, 0, 0
    while data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        length = int.from_bytes(data[offset + 2 : offset + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack_from(">HH", data, offset + 5)
        offset += 2 + length
        if marker == 0xDA:  # the scan: its end marker comes after it, not in an embedded thumbnail before it
            return ImageHeader("JPEG", width, height, data.find(b"\xff\xd9", offset) >= 0) if width else None
    return None


def _webp(data: bytes) -> ImageHeader | None:
    whole = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return ImageHeader("WebP", width, height, whole)


def _bmp(data: bytes) -> ImageHeader | None:
    header_bytes = int.from_bytes(data[14:18], "little")
    if header_bytes == 12:
        width, height, bits = (*struct.unpack_from("<HH", data, 18), int.from_bytes(data[24:26], "little"))
        packed = False
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        packed = compression in (1, 2)
    width, height = abs(width), abs(height)
    row_bytes = (width * bits + 31) // 32 * 4
    start = int.from_bytes(data[10:14], "little")
    return ImageHeader("BMP", width, height, packed or len(data) >= start + row_bytes * height)


def _tiff(data: bytes) -> ImageHeader | None:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, directory)
    sides = {}
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, at)
        if tag in (256, 257) and count == 1 and kind in (3, 4):
            (sides[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)
    if len(sides) != 2:
        return None
    return ImageHeader("TIFF", sides[256], sides[257], True)  # its decoder reports strips beyond the end
