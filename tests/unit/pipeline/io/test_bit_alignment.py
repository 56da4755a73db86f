"""Position of the stored bits: HighBit, and files in which it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_readers import by_dcmtk
from factories import compressed, dicom, dicom_file, ramp
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from unusual_files import changed

from pipeline.domain import XrayImage
from pipeline.errors import UnreadableImageError
from pipeline.io import decode

_RAMP = ramp(64, 48, 0, 4095)
_EXPECTED = _RAMP / 4095


def _one(content: bytes) -> XrayImage:
    (image,) = decode(content, Path("x.dcm"), "")
    return image


@pytest.mark.parametrize(
    ("allocated", "stored", "high", "signed"),
    [
        *((16, 12, 11, False), (16, 12, 15, False), (16, 12, 13, False), (16, 10, 15, False)),
        *((16, 12, 11, True), (16, 12, 15, True), (16, 10, 12, True), (16, 1, 15, False)),
        *((8, 6, 5, False), (8, 6, 7, False), (8, 6, 6, True)),
        *((32, 12, 11, False), (32, 16, 31, False), (32, 12, 31, True)),
    ],
)
def test_stored_bits_are_read_at_highbit(
    allocated: int, stored: int, high: int, signed: bool, tmp_path: Path
) -> None:
    low, top = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    values = ramp(64, 48, low, top, np.int64) << (high + 1 - stored)
    pixels = values.astype(f"{'i' if signed else 'u'}{allocated // 8}")
    content = dicom_file(dicom(pixels, bits=stored, HighBit=high))
    image = _one(content)
    expected = (ramp(64, 48, low, top, np.int64) - low) / (top - low)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    np.testing.assert_allclose(image.pixels, by_dcmtk(content, tmp_path, "+Wm"), atol=1 / 255)
    assert image.flags == ()


def test_left_aligned_values_in_a_big_endian_file() -> None:
    content = dicom_file(dicom(_RAMP << 4, bits=12, HighBit=15), ExplicitVRBigEndian)
    np.testing.assert_allclose(_one(content).pixels, _EXPECTED, atol=1e-6)


@pytest.mark.parametrize(
    "syntax",
    [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless],
    ids=lambda uid: uid.name,
)
def test_left_aligned_values_are_shifted_after_decompression(syntax: UID, tmp_path: Path) -> None:
    # Some encoders compress all 16 bits, of which 12 are used.
    content = compressed(dicom(_RAMP << 4), syntax, tmp_path)
    image = _one(changed(content, BitsStored=12, HighBit=15))
    np.testing.assert_allclose(image.pixels, _EXPECTED, atol=1e-6)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless], ids=lambda uid: uid.name)
def test_12_bit_code_stream_is_not_shifted(syntax: UID, tmp_path: Path) -> None:
    content = compressed(dicom(_RAMP, bits=12), syntax, tmp_path)
    image = _one(changed(content, HighBit=15))
    np.testing.assert_allclose(image.pixels, _EXPECTED, atol=1e-6)


@pytest.mark.parametrize(("shift", "high"), [(0, 15), (0, 9), (4, 11)])
def test_wrong_highbit_is_corrected_from_the_values(shift: int, high: int) -> None:
    image = _one(dicom_file(dicom(_RAMP << shift, bits=12, HighBit=high)))
    np.testing.assert_allclose(image.pixels, _EXPECTED, atol=1e-6)
    (flag,) = image.flags
    assert (flag.name, flag.reason) == (
        "header-mended",
        "Header corrected: HighBit contradicts the values",
    )


def test_missing_highbit_means_right_aligned_values() -> None:
    image = _one(dicom_file(dicom(_RAMP, bits=12, HighBit=None)))
    np.testing.assert_allclose(image.pixels, _EXPECTED, atol=1e-6)
    assert image.flags == ()


def test_values_with_more_bits_than_declared_are_refused() -> None:
    content = dicom_file(dicom(ramp(64, 48, 0, 65535), bits=12))
    with pytest.raises(UnreadableImageError, match="more bits than the 12 of the header"):
        _one(content)


def test_overlay_in_the_unused_bits_is_ignored(tmp_path: Path) -> None:
    overlay = np.zeros(_RAMP.shape, np.uint16)
    overlay[10:20, 10:30] = 1 << 14
    ds = dicom(_RAMP | overlay, bits=12)
    ds.add_new((0x6000, 0x0100), "US", 16)
    ds.add_new((0x6000, 0x0102), "US", 14)
    content = dicom_file(ds)
    image = _one(content)
    np.testing.assert_allclose(image.pixels, _EXPECTED, atol=1e-6)
    reference = by_dcmtk(content, tmp_path, "+Wm", "-O")
    np.testing.assert_allclose(image.pixels, reference, atol=1 / 255)


def test_padding_value_with_more_bits_than_stored() -> None:
    pixels = _RAMP.copy()
    pixels[:5] = 63536  # -2000, in a header that declares unsigned values
    image = _one(dicom_file(dicom(pixels, bits=12, PixelPaddingValue=63536)))
    assert image.pixels[:5].max() == 0.0
    assert image.pixels[5:].max() == 1.0


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"BitsAllocated": 24}, "12 bits stored in 24 allocated"),
        ({"BitsAllocated": 8}, "12 bits stored in 8 allocated"),
    ],
)
def test_other_container_sizes_are_refused(attributes: dict[str, Any], error: str) -> None:
    with pytest.raises(UnreadableImageError, match=error):
        _one(dicom_file(dicom(_RAMP, bits=12, **attributes)))


def test_left_aligned_colour_is_refused() -> None:
    colours = np.stack([_RAMP, _RAMP, _RAMP], -1)
    with pytest.raises(UnreadableImageError, match="colour whose HighBit"):
        _one(dicom_file(dicom(colours << 4, bits=12, HighBit=15)))
