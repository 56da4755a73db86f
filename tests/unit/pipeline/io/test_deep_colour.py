"""16-bit colour, planes, opacity and few bits in large containers, compared with ImageMagick."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import factories
import numpy as np
import pytest
from external_readers import by_imagemagick
from PIL import Image
from unusual_files import bmp32, png16, tiff

from pipeline.domain import XrayImage
from pipeline.errors import UnreadableImageError
from pipeline.io import decode

_WEIGHTS = np.array([0.299, 0.587, 0.114])
_GREY = factories.ramp(50, 40, 0, 255, np.uint8)
_DEEP = factories.ramp(50, 40, 0, 65535)
_TWELVE = factories.ramp(50, 40, 0, 4095)


def _colours(grey: np.ndarray) -> np.ndarray:
    """(H, W, 3): three different channels."""
    return np.stack([grey, grey[::-1], np.roll(grey, 7, 1)], -1)


def _one(content: bytes) -> XrayImage:
    (image,) = decode(content, Path("x.img"), "")
    return image


# ------------------------------------------------------------------------ 16-bit colour


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("samples", [3, 4])
def test_16_bit_colour_png_keeps_all_bits(samples: int, interlaced: bool, tmp_path: Path) -> None:
    colours = _colours(_DEEP)
    opacity = np.full((*_DEEP.shape, samples - 3), 65535, np.uint16)
    opacity[:10] = 40000
    content = png16(np.concatenate([colours, opacity], -1), interlaced=interlaced)
    image = _one(content)
    expected = colours @ _WEIGHTS / 65535
    if samples == 4:
        expected *= opacity[..., 0] / 65535
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    reference = by_imagemagick(content, tmp_path, "png", "-background", "black", "-alpha", "remove")
    np.testing.assert_allclose(image.pixels, reference, atol=2e-5)
    assert image.bit_depth == 16


def test_16_bit_grey_with_opacity_keeps_all_bits() -> None:
    opacity = np.full_like(_DEEP, 65535)
    opacity[:10] = 0
    image = _one(png16(np.stack([_DEEP, opacity], -1)))
    np.testing.assert_allclose(image.pixels, _DEEP / 65535 * (opacity > 0), atol=1e-6)
    assert image.bit_depth == 16


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True], ids=["raw", "deflated"])
@pytest.mark.parametrize("tile_px", [None, 16], ids=["strips", "tiles"])
@pytest.mark.parametrize("planes", [False, True], ids=["chunky", "planes"])
@pytest.mark.parametrize("grey", [_GREY, _DEEP], ids=["8 bit", "16 bit"])
def test_colour_tiff_is_read_in_every_layout(
    grey: np.ndarray,
    planes: bool,
    tile_px: int | None,
    deflated: bool,
    byte_order: Literal["<", ">"],
    tmp_path: Path,
) -> None:
    colours = _colours(grey)
    layout: dict[str, Any] = {"planes": planes, "tile_px": tile_px, "deflated": deflated}
    content = tiff(colours, byte_order=byte_order, **layout)
    image = _one(content)
    white = np.iinfo(grey.dtype).max
    # Pillow rounds the luminance of chunky 8-bit colour to 8 bits.
    np.testing.assert_allclose(image.pixels, colours @ _WEIGHTS / white, atol=0.5 / 255 + 1e-6)
    if grey is _DEEP:
        np.testing.assert_allclose(image.pixels, colours @ _WEIGHTS / white, atol=1e-6)
    reference = by_imagemagick(content, tmp_path, "tif")
    np.testing.assert_allclose(image.pixels, reference, atol=1 / 255)


@pytest.mark.parametrize("grey", [_GREY, _DEEP], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("samples", [2, 4])
def test_planes_with_opacity(samples: int, grey: np.ndarray) -> None:
    white = np.iinfo(grey.dtype).max
    opacity = np.full_like(grey, white)
    opacity[:10] = 0
    channels = [grey] if samples == 2 else [*np.moveaxis(_colours(grey), -1, 0)]
    content = tiff(np.stack([*channels, opacity], -1), planes=True, extra=2)
    if samples == 2 and grey is _DEEP:
        with pytest.raises(UnreadableImageError, match="unknown pixel mode"):
            _one(content)  # a limit of Pillow
        return
    weights = _WEIGHTS if samples == 4 else np.ones(1)
    expected = np.stack(channels, -1) @ weights / white * (opacity > 0)
    np.testing.assert_allclose(_one(content).pixels, expected, atol=1e-6)


def test_planes_in_which_white_is_zero() -> None:
    content = tiff(np.stack([_GREY, _GREY[::-1]], -1), planes=True, extra=0, photometric=0)
    np.testing.assert_allclose(_one(content).pixels, 1 - _GREY / 255, atol=1e-6)


@pytest.mark.parametrize("deflated", [False, True], ids=["raw", "deflated"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_integers_are_read_in_both_byte_orders(
    dtype: Any, byte_order: Literal["<", ">"], deflated: bool
) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = factories.ramp(50, 40, low, high, dtype)
    image = _one(tiff(values, byte_order=byte_order, deflated=deflated))
    np.testing.assert_allclose(image.pixels, (values.astype(float) - low) / 65535, atol=1e-6)


# ------------------------------------------------------------------------ few bits


def _files(values: np.ndarray) -> dict[str, bytes]:
    signed = values.astype(np.int16)
    return {
        "PNG": factories.raster(values, "PNG"),
        "TIFF": factories.raster(values, "TIFF"),
        "signed TIFF": factories.tiff(signed),
        "RGB PNG": png16(np.stack([values] * 3, -1)),
        "RGB TIFF": tiff(np.stack([values] * 3, -1)),
        "RGB planes": tiff(np.stack([values] * 3, -1), planes=True),
        "RGB DICOM": factories.dicom_file(factories.dicom(np.stack([values] * 3, -1))),
    }


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("layout", list(_files(_TWELVE)))
def test_white_of_few_bits_in_16_is_derived_from_the_values(layout: str, bits: int) -> None:
    values = factories.ramp(50, 40, 0, 2**bits - 1)
    image = _one(_files(values)[layout])
    np.testing.assert_allclose(image.pixels, values / (2**bits - 1), atol=1e-6)


def test_signed_values_are_stretched_over_their_range() -> None:
    values = factories.ramp(50, 40, -1000, 3000, np.int16)
    image = _one(factories.tiff(values))
    np.testing.assert_allclose(image.pixels, (values + 1000.0) / 4000, atol=1e-6)


# ------------------------------------------------------------------------ opacity


@pytest.mark.parametrize("header_bytes", [56, 108, 124])
def test_fully_transparent_bmp_is_read_as_opaque(
    header_bytes: Literal[56, 108, 124], tmp_path: Path
) -> None:
    content = bmp32(_GREY, np.zeros_like(_GREY), header_bytes)
    pixels = _one(content).pixels
    np.testing.assert_allclose(pixels, _GREY / 255, atol=1e-6)
    reference = by_imagemagick(content, tmp_path, "bmp", "-alpha", "off")
    np.testing.assert_allclose(pixels, reference, atol=1e-3)


def test_transparent_part_of_a_bmp_is_black() -> None:
    opacity = np.full_like(_GREY, 255)
    opacity[:10] = 0
    pixels = _one(bmp32(_GREY, opacity)).pixels
    np.testing.assert_allclose(pixels, _GREY / 255 * (opacity > 0), atol=1e-6)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "16 bit PNG"])
def test_fully_transparent_picture_of_other_formats_is_read_as_opaque(file_format: str) -> None:
    if file_format == "16 bit PNG":
        clear = np.zeros_like(_DEEP)
        pixels = _one(png16(np.stack([_DEEP, _DEEP, _DEEP, clear], -1))).pixels
        np.testing.assert_allclose(pixels, _DEEP / 65535, atol=1e-6)
        return
    picture = Image.fromarray(np.dstack([_GREY] * 3 + [np.zeros_like(_GREY)]))
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    pixels = _one(factories.raster(picture, file_format, **options)).pixels
    np.testing.assert_allclose(pixels, _GREY / 255, atol=1e-6)
