"""Grey values of raster files, compared with explicit formulas."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Literal

import factories
import numpy as np
import pytest
from PIL import Image

from pipeline.domain import XrayImage
from pipeline.errors import UnreadableImageError
from pipeline.io import decode
from pipeline.io.limits import MAX_PIXELS

_GREY = factories.ramp(6, 5, 0, 255, np.uint8)
_DEEP = factories.ramp(6, 5, 0, 65535)


def _one(content: bytes) -> XrayImage:
    (image,) = decode(content, Path("x.img"), "")
    return image


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_8_bit_grey_is_divided_by_255(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = _one(factories.raster(_GREY, file_format, **options))
    np.testing.assert_allclose(image.pixels, _GREY / 255, atol=1e-7)
    assert image.bit_depth == 8


def test_jpeg_is_close_to_the_original() -> None:
    image = _one(factories.raster((factories.bone() * 255).astype(np.uint8), "JPEG", quality=95))
    np.testing.assert_allclose(image.pixels, factories.bone(), atol=0.02)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_all_its_levels(file_format: str) -> None:
    image = _one(factories.raster(_DEEP, file_format))
    np.testing.assert_allclose(image.pixels, _DEEP / 65535, atol=1e-7)
    assert image.bit_depth == 16


def test_colour_becomes_luminance() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
    expected = np.array([[0.299, 0.587, 0.114, 90 / 255]])
    np.testing.assert_allclose(_one(factories.raster(colours, "PNG")).pixels, expected, atol=0.003)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_parts_are_black(mode: str) -> None:
    picture = Image.new("L", (3, 2), 200).convert(mode)
    picture.putalpha(Image.fromarray(np.array([[0, 255, 255], [255, 0, 255]], np.uint8)))
    expected = np.array([[0, 200, 200], [200, 0, 200]]) / 255
    np.testing.assert_allclose(_one(factories.raster(picture, "PNG")).pixels, expected, atol=1e-6)


def test_palette_and_bilevel_pictures_are_looked_up() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 10, 10, 250, 250, 250])
    np.testing.assert_allclose(
        _one(factories.raster(palette, "PNG")).pixels, [[10 / 255, 250 / 255]], atol=1e-6
    )
    bilevel = _one(factories.raster(Image.fromarray(np.array([[False, True]])), "PNG"))
    assert bilevel.pixels.tolist() == [[0.0, 1.0]]
    assert bilevel.bit_depth == 1


def test_cmyk_paper_is_white_and_black_ink_is_black() -> None:
    inks = np.array([[[0, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    image = _one(factories.raster(Image.fromarray(inks, "CMYK"), "TIFF"))
    assert image.pixels.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(file_format: str) -> None:
    lower_left_bright = np.zeros((16, 32), np.uint8)
    lower_left_bright[8:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees
    image = _one(factories.raster(lower_left_bright, file_format, exif=exif.tobytes()))
    assert image.pixels.shape == (32, 16)
    assert image.pixels[4, 4] > 0.9
    assert image.pixels[28, 4] < 0.1


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bit_tiff_is_read_in_both_byte_orders(byte_order: Literal["<", ">"]) -> None:
    image = _one(factories.tiff(_DEEP, byte_order=byte_order))
    np.testing.assert_allclose(image.pixels, _DEEP / 65535, atol=1e-7)


@pytest.mark.parametrize("values", [_GREY, _DEEP], ids=["8 bit", "16 bit"])
def test_white_is_zero_tiff_is_inverted(values: factories.Pixels) -> None:
    white = np.iinfo(values.dtype).max
    image = _one(factories.tiff(values, photometric=0))
    np.testing.assert_allclose(image.pixels, 1 - values / white, atol=1e-6)


def test_16_bit_tiff_with_orientation_is_upright() -> None:
    image = _one(factories.tiff(_DEEP, orientation=6))
    np.testing.assert_allclose(image.pixels, np.rot90(_DEEP, -1) / 65535, atol=1e-7)


def test_signed_16_bit_tiff_is_stretched_over_its_range() -> None:
    image = _one(factories.tiff(np.array([[-32768, 0, 32767]], np.int16)))
    np.testing.assert_allclose(image.pixels, [[0, 32768 / 65535, 1]], atol=1e-6)


def test_signed_8_bit_tiff_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="signed 8-bit"):
        _one(factories.tiff(np.array([[-1, 0]], np.int8)))


def test_floats_in_the_unit_range_are_kept_and_others_are_stretched() -> None:
    inside = np.array([[0.25, 0.5]], np.float32)
    assert _one(factories.tiff(inside)).pixels.tolist() == [[0.25, 0.5]]
    outside = np.array([[-100.0, 0.0, 300.0]], np.float32)
    assert _one(factories.tiff(outside)).pixels.tolist() == [[0.0, 0.25, 1.0]]
    large = np.array([[0, 3_000_000_000, 4_000_000_000]], np.uint32)
    np.testing.assert_allclose(_one(factories.tiff(large)).pixels, [[0, 0.75, 1]], atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_floats_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(UnreadableImageError, match="1 pixels that are NaN or infinite"):
        _one(factories.tiff(np.array([[0.0, bad]], np.float32)))


def test_constant_float_picture_is_black() -> None:
    assert _one(factories.tiff(np.full((2, 2), 7, np.float32))).pixels.max() == 0.0


def test_tiff_pages_are_frames() -> None:
    pages = [Image.fromarray(_GREY), Image.fromarray(255 - _GREY)]
    content = factories.raster(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    first, second = decode(content, Path("x.tif"), "")
    assert (first.source.frame, second.source.frame) == (0, 1)
    np.testing.assert_allclose(second.pixels, 1 - _GREY / 255, atol=1e-6)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_only_the_first_picture_of_an_animation_is_read(file_format: str) -> None:
    pages = [Image.fromarray(_GREY), Image.fromarray(255 - _GREY)]
    content = factories.raster(
        pages[0], file_format, save_all=True, append_images=pages[1:], lossless=True
    )
    image = _one(content)
    assert image.source.frame is None
    np.testing.assert_allclose(image.pixels, _GREY / 255, atol=1e-6)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_files_are_refused(file_format: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100), np.uint8)
    content = factories.raster(noise, file_format)
    with pytest.raises(UnreadableImageError, match=r"^x\.img: (found|cannot decode) .*, expected"):
        _one(content[: max(20, int(share * len(content)))])


def test_too_many_pixels_are_refused_before_decoding() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    body = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    content = b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", 9) + b"IDAT" + b"x" * 13
    with pytest.raises(
        UnreadableImageError, match=rf"50000 x 50000 px, expected at most {MAX_PIXELS}"
    ):
        _one(content)


def test_damaged_exif_block_causes_no_error_or_warning() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The block declares five entries but contains one: a rotation by 90 degrees.
        assert _one(factories.raster(_GREY, "JPEG", exif=exif)).pixels.shape == (5, 6)


def test_decoding_in_threads_does_not_change_the_warning_filters() -> None:
    content = factories.raster(_GREY, "PNG")
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [_one(content) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
