"""Every kind of picture a user may bring, and what is no picture."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from derain.errors import FrameError, MediaError, UsageError
from derain.images import IMAGE_SUFFIXES, list_images, read_image, write_image

Picture = NDArray[np.uint8]
LOSSLESS = [suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpg", ".jpeg")]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_round_trip(tmp_path: Path, rainy_picture: Picture, suffix: str) -> None:
    before = rainy_picture.copy()
    write_image(tmp_path / f"a{suffix}", rainy_picture)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), before)
    assert np.array_equal(rainy_picture, before)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg_round_trip_is_close(tmp_path: Path, rainy_picture: Picture, suffix: str) -> None:
    smooth = cv2.GaussianBlur(rainy_picture, (0, 0), 3)
    write_image(str(tmp_path / f"a{suffix}"), smooth)
    difference = read_image(tmp_path / f"a{suffix}").astype(int) - smooth
    assert np.abs(difference).mean() < 1.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (3, 17), (97, 131)])
@pytest.mark.parametrize("suffix", LOSSLESS)
def test_odd_sizes(tmp_path: Path, shape: tuple[int, int], suffix: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    write_image(tmp_path / f"a{suffix}", picture)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), picture)


def test_grey_palette_alpha_and_one_bit(tmp_path: Path, rainy_picture: Picture) -> None:
    rgb = Image.fromarray(rainy_picture[..., ::-1])
    grey = rgb.convert("L")
    palette = rgb.quantize(40)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.full(rainy_picture.shape[:2], 3, np.uint8)))
    for name, picture, expected in [
        ("grey", grey, np.repeat(np.asarray(grey)[..., None], 3, axis=2)),
        ("grey_alpha", grey.convert("LA"), np.repeat(np.asarray(grey)[..., None], 3, axis=2)),
        ("palette", palette, np.asarray(palette.convert("RGB"))[..., ::-1]),
        ("alpha", alpha, rainy_picture),
        ("one_bit", grey.convert("1"), np.repeat(np.asarray(grey.convert("1").convert("L"))[..., None], 3, axis=2)),
    ]:
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), expected), name


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_with_rounding(tmp_path: Path, suffix: str) -> None:
    levels = np.array([0, 128, 129, 257, 32768, 65407, 65535], np.uint16)
    picture = np.repeat(levels[None, :, None], 3, axis=2)
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), picture)
    assert read_image(tmp_path / f"a{suffix}")[0, :, 1].tolist() == [0, 0, 1, 1, 128, 255, 255]


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_orientation(tmp_path: Path, orientation: int, turn: int) -> None:
    picture = np.zeros((40, 64, 3), np.uint8)
    picture[:16, :16] = 255  # a white corner, top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    result = read_image(tmp_path / "a.jpg")
    expected = np.rot90(picture, turn)
    assert result.shape == expected.shape
    assert np.abs(result.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_cut_off_at_every_place(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A cut-off file is refused, wherever the cut is, and the decoder prints nothing of its own."""
    picture = np.random.default_rng(1).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    whole = buffer.getvalue()
    file = tmp_path / "a.img"
    for length in [*range(1, 64), *range(64, len(whole) - 1, 37)]:
        file.write_bytes(whole[:length])
        try:
            result = read_image(file)
        except FrameError:
            continue
        # Only bytes behind the last pixel (a TIFF directory's or file's padding) may be missing.
        assert np.array_equal(result[..., ::-1], picture), length
    file.write_bytes(whole)
    assert read_image(file).shape == (24, 31, 3)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_damaged_bytes_raise_nothing_else(tmp_path: Path, kind: str) -> None:
    """A wrong byte may make another picture (a wrong colour), but never another exception."""
    random = np.random.default_rng(2)
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (24, 31, 3), dtype=np.uint8)).save(buffer, kind)
    file = tmp_path / "a.img"
    for turn in range(150):
        content = bytearray(buffer.getvalue())
        content[random.integers(60 if turn % 2 else len(content))] = random.integers(256)
        file.write_bytes(content)
        with suppress(FrameError):
            assert read_image(file).dtype == np.uint8


def test_a_thumbnails_end_is_not_the_pictures(tmp_path: Path, rainy_picture: Picture) -> None:
    buffer = io.BytesIO()
    Image.fromarray(rainy_picture).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg)) + jpeg
    whole = jpeg[:2] + thumbnail + jpeg[2:]
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert read_image(tmp_path / "whole.jpg").shape == rainy_picture.shape
    (tmp_path / "cut.jpg").write_bytes(whole[:-200])
    with pytest.raises(FrameError, match="damaged or cut-off JPEG"):
        read_image(tmp_path / "cut.jpg")


def test_a_small_file_that_claims_gigapixels(tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(FrameError, match=r"claims 60000 x 60000 pixels\. Expected at most 200 megapixels"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
        (b"\xff\xd8\xff", "not a picture"),
        (b"\xff\xd8\xff\xe0\x00\x00" * 50, "not a picture"),
        (b"BM" + bytes(100), "damaged"),
        (b"II*\0" + b"\xff" * 60, "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ],
)
def test_no_picture(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(FrameError, match=message):
        read_image(tmp_path / "a.png")


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="No such file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(FrameError, match="not a file"):
        read_image(tmp_path)


def test_floating_point_values_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((4, 4, 3), np.float32))
    with pytest.raises(FrameError, match="float32 values"):
        read_image(tmp_path / "a.tif")


def test_write_refuses_bad_arguments(tmp_path: Path, rainy_picture: Picture) -> None:
    with pytest.raises(UsageError, match=r"suffix '\.gif'.*Expected one of \.png"):
        write_image(tmp_path / "a.gif", rainy_picture)
    with pytest.raises(FrameError, match="dtype float32"):
        write_image(tmp_path / "a.png", rainy_picture.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="shape"):
        write_image(tmp_path / "a.png", rainy_picture[..., :2])
    with pytest.raises(FrameError, match=r"cannot be stored as \.webp"):
        write_image(tmp_path / "a.webp", np.zeros((1, 20000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_list_images(tmp_path: Path) -> None:
    for name in ("f10.png", "f2.PNG", "f1.jpg", ".hidden.png", "notes.txt", "10.png", "9.tiff"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub.png").mkdir()
    assert [file.name for file in list_images(tmp_path)] == ["9.tiff", "10.png", "f1.jpg", "f2.PNG", "f10.png"]


def test_list_images_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="No such file"):
        list_images(tmp_path / "missing")
    with pytest.raises(MediaError, match=r"holds no picture\. Expected files ending in \.png"):
        list_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(MediaError, match="Not a directory"):
        list_images(tmp_path / "a.png")
