"""File formats are recognised by content; the name only classifies unknown content."""

from __future__ import annotations

from pathlib import Path

import factories
import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from pipeline.errors import NotAPictureError, UnreadableImageError
from pipeline.io import decode
from pipeline.io.sniff import Kind, claims_picture, sniff

_GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize("kind", [Kind.JPEG, Kind.PNG, Kind.TIFF, Kind.WEBP, Kind.BMP])
def test_raster_formats_are_recognised(kind: Kind) -> None:
    assert sniff(factories.raster(_GREY, kind.value.upper())) is kind


def test_dicom_is_recognised_with_and_without_preamble() -> None:
    explicit = factories.dicom_file(factories.dicom(_GREY))
    implicit = factories.dicom_file(factories.dicom(_GREY), ImplicitVRLittleEndian)
    length = int.from_bytes(implicit[140:144], "little")
    for content in (explicit, explicit[132:], implicit, implicit[144 + length :]):
        assert sniff(content) is Kind.DICOM


def test_dicom_without_preamble_decodes() -> None:
    content = factories.dicom_file(factories.dicom(_GREY), ImplicitVRLittleEndian)
    bare = content[144 + int.from_bytes(content[140:144], "little") :]
    (image,) = decode(bare, Path("IM0001"), "")
    np.testing.assert_allclose(image.pixels, _GREY / 63, atol=1e-6)


def test_big_endian_dicom_without_preamble_is_recognised() -> None:
    deep = factories.ramp(8, 8, 0, 4095)
    content = factories.dicom_file(factories.dicom(deep), ExplicitVRBigEndian)
    bare = content[144 + int.from_bytes(content[140:144], "little") :]
    assert sniff(bare) is Kind.DICOM
    (image,) = decode(bare, Path("IM0001"), "")
    np.testing.assert_allclose(image.pixels, deep / 4095, atol=1e-6)


def test_dicom_with_a_tiff_header_as_preamble_is_dicom() -> None:
    content = factories.dicom_file(factories.dicom(_GREY))
    assert sniff(b"II*\0" + content[4:]) is Kind.DICOM


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"BMI,patient,label\n22,a,b\n" * 9,
        b"\x08\0",
        b"\x08\0\x05\0CS\xff\xff",
        b"\x08\0\x05\0" * 40,
        b"\0\x08\0\x05" * 40,
        b"\0\x08\0\x05\0\0\0\x02AB\0\x08\0\x16\0\0\0\x02AB",  # implicit big endian does not exist
        "näme,weiß\n".encode("utf-16-le"),
        b"RIFF1234WAVE",
        bytes(4096),
    ],
)
def test_other_content_is_unknown(content: bytes) -> None:
    assert sniff(content) is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("a.JPG", True),
        ("a.jp2", True),
        ("IM000001", True),
        ("1.2.840.113619.2.5", True),
        ("README.md", False),
        ("labels.csv", False),
        (".DS_Store", False),
        ("model.onnx", False),
        ("export.zip/IM000001", True),
        ("export/._IM000001.jpg", False),
        ("export/.DS_Store", False),
    ],
)
def test_name_with_a_picture_suffix_or_none_claims_a_picture(name: str, claims: bool) -> None:
    assert claims_picture(name) is claims


@pytest.mark.parametrize(
    ("content", "format_name"),
    [
        (b"label,path\n1,x\n", "text"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\n<!DOCTYPE html><p>404", "HTML"),
        (b"\xff\x4f\xff\x51\0\0", "JPEG 2000"),
        (b"\x01\x02\xfe\xfd\x80", "unknown format"),
        (bytes(100), "zero bytes"),
    ],
)
def test_error_names_the_probable_format(content: bytes, format_name: str) -> None:
    with pytest.raises(
        UnreadableImageError, match=rf"^x\.dcm: found .*{format_name}.*, expected DICOM"
    ):
        next(decode(content, Path("folder/x.dcm"), ""))
    with pytest.raises(NotAPictureError, match=format_name):
        next(decode(content, Path("x.csv"), ""))


def test_empty_file_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match=r"empty file \(0 bytes\)"):
        next(decode(b"", Path("x.png"), ""))


def test_wrong_suffix_is_ignored() -> None:
    (image,) = decode(factories.raster(_GREY, "PNG"), Path("x.dcm"), "d")
    np.testing.assert_allclose(image.pixels, _GREY / 255, atol=1e-7)
    assert (image.source.path, image.source.sha256, image.source.frame) == (
        Path("x.dcm"),
        "d",
        None,
    )
