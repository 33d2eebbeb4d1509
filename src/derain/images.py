"""Pictures on disk, read and written as uint8 BGR arrays."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from derain.errors import FrameError, MediaError, MissingDependencyError, UsageError
from derain.files import atomic_path, check_size
from derain.image_header import read_header

if TYPE_CHECKING:
    from types import ModuleType

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 200_000_000
MAX_FILE_BYTES = 2 << 30
_JPEG_QUALITY = 95

Picture = NDArray[np.uint8]


def _cv2() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError("cv2", needed_for="Reading and writing pictures", extra="opencv") from error
    return cv2


def require_picture(array: Any, what: str = "The picture") -> None:
    """Refuse anything but a uint8 (H, W, 3) array with at least one pixel.

    Raises:
        FrameError: naming the type, shape or dtype found.
    """
    expected = "a uint8 array of shape (height, width, 3), channels in BGR order"
    if not isinstance(array, np.ndarray):
        raise FrameError(f"{what} is a {type(array).__name__}", expected=expected)
    if array.dtype != np.uint8:
        raise FrameError(f"{what} has dtype {array.dtype}", expected=expected)
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise FrameError(f"{what} has shape {array.shape}", expected=expected)


def read_image(path: str | Path) -> Picture:
    """Read a picture as uint8 (H, W, 3) in BGR order.

    Grey and palette pictures are expanded to three channels, an alpha channel is dropped, 16 bits are scaled to 8
    (65535 becomes 255), and the EXIF orientation is applied.

    Raises:
        FrameError: missing, empty, damaged or cut off, not a PNG, JPEG, WebP, BMP or TIFF, of floating-point values,
            or of more than 200 megapixels.
        MissingDependencyError: OpenCV is not installed.
    """
    path = Path(path)
    check_size(path, MAX_FILE_BYTES, FrameError)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"'{path}' cannot be read ({error.strerror})") from error
    header = read_header(data)
    if header is None:
        raise FrameError(f"'{path}' is not a picture derain can read", expected="PNG, JPEG, WebP, BMP or TIFF")
    if header.width * header.height > MAX_PIXELS:
        # Checked before decoding: a few kilobytes of PNG can claim gigabytes of pixels.
        raise FrameError(
            f"'{path}' claims {header.width} x {header.height} pixels",
            expected=f"at most {MAX_PIXELS // 10**6} megapixels",
        )
    damaged = FrameError(f"'{path}' is a damaged or cut-off {header.kind} file", fix="Copy or create the file again")
    if not header.whole:
        raise damaged
    decoded = _decode(data)
    if decoded is None:
        raise damaged
    if decoded.dtype == np.uint16:
        return np.asarray((decoded.astype(np.uint32) + 128) // 257, dtype=np.uint8)
    if decoded.dtype != np.uint8:
        raise FrameError(
            f"'{path}' holds {decoded.dtype} values", expected="8 or 16 bits per channel", fix="Convert it to PNG first"
        )
    return np.asarray(decoded, dtype=np.uint8)


def _decode(data: bytes) -> NDArray[Any] | None:
    """The pixels, uint8 or as deep as they are stored; None when OpenCV cannot decode them."""
    cv2 = _cv2()
    with _quiet(cv2):
        try:
            # Any depth, so that we scale 16 bits with rounding ourselves.
            decoded: NDArray[Any] | None = cv2.imdecode(
                np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
            )
        except cv2.error:
            return None
    return decoded


@contextmanager
def _quiet(cv2: ModuleType) -> Iterator[None]:
    """Keep OpenCV's own error lines away from our one clear message.

    Its level belongs to the process, and pictures are read in several threads: the last one out restores it.
    """
    logging = cv2.utils.logging
    with _quiet_lock:
        if not _quiet_levels:
            _quiet_levels.append(logging.getLogLevel())
            logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        else:
            _quiet_levels.append(_quiet_levels[0])
    try:
        yield
    finally:
        with _quiet_lock:
            level = _quiet_levels.pop()
            if not _quiet_levels:
                logging.setLogLevel(level)


_quiet_lock = threading.Lock()
_quiet_levels: list[int] = []  # the level to restore, once for every thread inside


def write_image(path: str | Path, bgr: Picture) -> None:
    """Write a uint8 (H, W, 3) BGR picture; the format follows the suffix, and the file appears whole or not at all.

    JPEG is written with quality 95; the other formats are lossless.

    Raises:
        UsageError: a suffix that is not one of ``IMAGE_SUFFIXES``.
        FrameError: not a uint8 (H, W, 3) array, or too large for the format.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UsageError(
            f"'{path}' has the suffix '{path.suffix}', which is no picture format derain writes",
            expected="one of " + ", ".join(IMAGE_SUFFIXES),
        )
    require_picture(bgr)
    cv2 = _cv2()
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    try:
        encoded, data = cv2.imencode(suffix, bgr, options)
    except cv2.error as error:
        raise FrameError(f"A picture of shape {bgr.shape} cannot be stored as {suffix} ({error.err})") from error
    if not encoded:
        raise FrameError(f"A picture of shape {bgr.shape} cannot be stored as {suffix}", fix="Write a .png instead")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def natural_key(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts frame2.png before frame10.png."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return tuple((0, int(part)) if part.isdigit() else (1, part.lower()) for part in parts)


def list_images(folder: str | Path) -> list[Path]:
    """The pictures of a folder, by suffix, in natural order; sub-folders and hidden files are left out.

    Raises:
        MediaError: the folder is missing, unreadable, not a folder, or holds no picture.
    """
    folder = Path(folder)
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    except OSError as error:
        raise MediaError(
            f"Folder '{folder}' cannot be read ({error.strerror})", expected="a folder of pictures"
        ) from error
    pictures = sorted(
        (file for file in files if not file.name.startswith(".")), key=lambda file: (natural_key(file), file.name)
    )
    if not pictures:
        raise MediaError(f"Folder '{folder}' holds no picture", expected="files ending in " + ", ".join(IMAGE_SUFFIXES))
    return pictures
