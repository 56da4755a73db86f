"""Resampling to square pixels in every format, with spacing and flag."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_readers import by_dcmtk
from factories import bone, dicom, dicom_file, raster
from PIL import Image
from unusual_files import groups, item, tiff

from pipeline.domain import XrayImage
from pipeline.io import decode
from pipeline.io.limits import MAX_PIXELS
from pipeline.io.square_pixels import square_shape, squared

_SQUARE = np.rint(bone(96, 80) * 4095).astype(np.uint16)
_HALF = _SQUARE[::2]  # row spacing is twice the column spacing
_NARROW = _SQUARE[:, ::2]
_WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def _one(content: bytes) -> XrayImage:
    (image,) = decode(content, Path("x.img"), "")
    return image


def _like(image: XrayImage, expected: np.ndarray) -> None:
    assert image.pixels.shape == expected.shape
    assert float(np.abs(image.pixels - expected).mean()) < 0.01


def _dicom(pixels: np.ndarray, **header: Any) -> XrayImage:
    return _one(dicom_file(dicom(pixels, bits=12, **_WINDOW, **header)))


_CONTROL = _SQUARE / 4095
_EIGHT = np.rint(_CONTROL * 255).astype(np.uint8)


# ------------------------------------------------------------------------ DICOM


@pytest.mark.parametrize(
    "header",
    [
        {"PixelSpacing": [0.4, 0.2]},
        {"ImagerPixelSpacing": [0.4, 0.2]},
        {"NominalScannedPixelSpacing": [0.4, 0.2]},
        {"PixelAspectRatio": [2, 1]},
        {"PixelAspectRatio": [20, 10]},
        {"SharedFunctionalGroupsSequence": groups(PixelMeasuresSequence=item(PixelSpacing=[2, 1]))},
    ],
    ids=lambda header: next(iter(header)),
)
def test_high_pixels_of_dicom_files_become_square(header: dict[str, Any]) -> None:
    image = _dicom(_HALF, **header)
    _like(image, _CONTROL)
    (flag,) = image.flags
    assert (flag.name, flag.reason) == (
        "not-square",
        "Pixels are 2 times as high as wide: resampled to square pixels",
    )


def test_wide_pixels_become_square() -> None:
    _like(_dicom(_NARROW, PixelAspectRatio=[1, 2]), _CONTROL)


def test_proportions_match_dcmtk(tmp_path: Path) -> None:
    content = dicom_file(dicom(_HALF, bits=12, **_WINDOW, PixelAspectRatio=[2, 1]))
    reference = by_dcmtk(content, tmp_path, "+Wi", "1", "+Sxv", "80", "+a", "+i", "3")
    assert reference.shape == _one(content).pixels.shape
    _like(_one(content), reference)


@pytest.mark.parametrize(
    "header",
    [
        {"PixelSpacing": [0.2, 0.2], "PixelAspectRatio": [2, 1]},  # spacing takes precedence
        {"PixelSpacing": [0.143, 0.1435]},  # 0.3 % is not visible
        {"PixelAspectRatio": [1, 1]},
        {},
    ],
)
def test_square_pixels_are_not_resampled(header: dict[str, Any]) -> None:
    image = _dicom(_SQUARE, **header)
    np.testing.assert_array_equal(image.pixels, _dicom(_SQUARE).pixels)
    assert image.flags == ()


def test_implausible_proportions_are_ignored_and_flagged() -> None:
    image = _dicom(_SQUARE, PixelSpacing=[10, 0.1])
    assert image.pixels.shape == _SQUARE.shape
    assert image.flags[0].reason.endswith("implausible, ignored")


def test_spacing_is_that_of_the_square_pixels() -> None:
    assert _dicom(_HALF, ImagerPixelSpacing=[0.4, 0.2]).spacing_mm == pytest.approx((0.2, 0.2))


# ------------------------------------------------------------------------ other formats


def _with_jfif_unit(content: bytes, unit: int) -> bytes:
    at = content.index(b"JFIF\0") + 7
    return content[:at] + bytes([unit]) + content[at + 1 :]


def _exif(across: int, down: int) -> bytes:
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = float(across), float(down), 2
    return exif.tobytes()


_DENSE = {"dpi": (200, 100)}


@pytest.mark.parametrize(
    "content",
    [
        raster(_EIGHT[::2], "JPEG", quality=95, **_DENSE),
        _with_jfif_unit(raster(_EIGHT[::2], "JPEG", quality=95, **_DENSE), 0),
        _with_jfif_unit(raster(_EIGHT[::2], "JPEG", quality=95, **_DENSE), 2),
        raster(_EIGHT[::2], "JPEG", quality=95, exif=_exif(200, 100)),
        raster(_EIGHT[::2], "PNG", **_DENSE),
        raster(_EIGHT[::2], "BMP", **_DENSE),
        raster(_EIGHT[::2], "WEBP", lossless=True, exif=_exif(200, 100)),
        raster(_EIGHT[::2], "TIFF", **_DENSE),
        raster(_EIGHT[::2], "TIFF", compression="tiff_lzw", **_DENSE),
        tiff(_EIGHT[::2], density=(200, 100)),
        tiff(np.stack([_EIGHT[::2]] * 3, -1), planes=True, density=(204, 102)),
    ],
    ids=["JFIF", "JFIF ratio", "JFIF cm", "EXIF", "PNG", "BMP", "WebP", "TIFF", "LZW", "strips",
         "planes"],
)  # fmt: skip
def test_density_of_a_file_gives_the_pixel_proportions(content: bytes) -> None:
    image = _one(content)
    _like(image, _CONTROL)
    assert [flag.name for flag in image.flags] == ["not-square"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["TIFF", "JPEG", "planes"])
def test_density_together_with_orientation(file_format: str, orientation: int) -> None:
    # The square picture as stored for each EXIF orientation, with every second row removed.
    stored = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.T, 6: np.rot90, 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1),
    }[orientation](_EIGHT)[::2]  # fmt: skip
    if file_format == "JPEG":
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = raster(stored, "JPEG", quality=95, exif=exif.tobytes(), **_DENSE)
    elif file_format == "TIFF":
        content = tiff(stored, density=(200, 100), orientation=orientation)
    else:
        colours = np.stack([stored] * 3, -1)
        content = tiff(colours, planes=True, density=(200, 100), orientation=orientation)
    _like(_one(content), _CONTROL)


@pytest.mark.parametrize("density", [(0, 0), (0, 100), (100, 100), (72, 72)])
def test_invalid_or_equal_density_changes_nothing(density: tuple[int, int]) -> None:
    content = bytearray(raster(_EIGHT, "JPEG", dpi=(100, 100)))
    struct.pack_into(">HH", content, content.index(b"JFIF\0") + 8, *density)
    image = _one(bytes(content))
    assert (image.pixels.shape, image.flags) == (_EIGHT.shape, ())


# ------------------------------------------------------------------------ square_shape, squared


def test_coarser_side_grows_unless_the_picture_becomes_too_large() -> None:
    assert square_shape((100, 80), 2.0) == (200, 80)
    assert square_shape((100, 80), 0.5) == (100, 160)
    assert square_shape((100, 80), None) == (100, 80)
    side = int(MAX_PIXELS**0.5)
    assert square_shape((side, side), 2.0) == (side, round(side / 2))
    assert square_shape((side, side), 0.5) == (round(side / 2), side)


def test_square_pictures_are_not_copied() -> None:
    pixels = bone()
    assert squared(pixels, 1.0)[0] is pixels
    assert squared(pixels, None)[0] is pixels
