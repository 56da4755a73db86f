"""Decoding of every transfer syntax of radiographs: pixel values and errors."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from factories import compressed, dicom, dicom_file, ramp
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pipeline.domain import XrayImage
from pipeline.errors import UnreadableImageError
from pipeline.io import decode
from pipeline.io import dicom as reader

_RAMP = ramp(64, 48, 0, 4095)
_LOSSLESS = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)


def _all(content: bytes) -> list[XrayImage]:
    return list(decode(content, Path("x.dcm"), ""))


def _one(content: bytes) -> XrayImage:
    (image,) = _all(content)
    return image


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
    ids=lambda syntax: syntax.name,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_uncompressed_pixel_values(syntax: UID, dtype: Any) -> None:
    limits = np.iinfo(dtype)
    stored = ramp(7, 5, limits.min, limits.max, dtype)
    image = _one(dicom_file(dicom(stored), syntax))
    expected = (stored.astype(float) - limits.min) / (limits.max - limits.min)
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert image.dicom is not None
    assert image.dicom["TransferSyntaxUID"] == syntax


@pytest.mark.parametrize("syntax", _LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(
    ("bits", "signed"), [(8, False), (10, False), (12, False), (14, False), (16, False), (12, True)]
)
def test_lossless_compressions_give_the_stored_values(
    syntax: UID, bits: int, signed: bool, tmp_path: Path
) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    dtype = np.int16 if signed else np.uint8 if bits == 8 else np.uint16
    stored = ramp(64, 48, low, high, dtype)
    image = _one(compressed(dicom(stored, bits=bits), syntax, tmp_path))
    np.testing.assert_allclose(image.pixels, (stored.astype(float) - low) / (high - low), atol=1e-6)
    assert image.bit_depth == bits


@pytest.mark.parametrize(
    ("syntax", "bits", "levels"),
    [
        (JPEGBaseline8Bit, 8, 2),
        (JPEGExtended12Bit, 12, 2),
        (JPEGLSNearLossless, 12, 2),
        (JPEG2000, 12, 8),
    ],
    ids=["baseline", "extended 12 bit", "JPEG-LS near-lossless", "JPEG 2000 lossy"],
)
def test_lossy_compressions_are_within_a_few_levels(
    syntax: UID, bits: int, levels: int, tmp_path: Path
) -> None:
    white = 2**bits - 1
    stored = ramp(64, 48, 0, white, np.uint8 if bits == 8 else np.uint16)
    window = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    image = _one(compressed(dicom(stored, bits=bits, **window), syntax, tmp_path))
    assert np.abs(image.pixels * white - stored).max() <= levels


def test_12_bit_jpeg_matches_reference_values_of_another_decoder() -> None:
    ds = _bundled("JPGExtended.dcm")
    image = _one(dicom_file(ds))
    # libjpeg (Thomas Richter's) gives 244 and 95 of 0..264, as in the tests of pydicom.
    assert image.pixels[420, 140] == pytest.approx(244 / 264)
    assert image.pixels[230, 120] == pytest.approx(95 / 264)


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_rle_16bit.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    ],
)
def test_colour_captures_become_luminance(name: str) -> None:
    # Colour bars of ten rows each, from the test files of pydicom.
    image = _one(dicom_file(_bundled(name)))
    for row, (red, green, blue) in {5: (1, 0, 0), 25: (0, 1, 0), 45: (0, 0, 1)}.items():
        expected = 0.299 * red + 0.587 * green + 0.114 * blue
        assert image.pixels[row, 50] == pytest.approx(expected, abs=0.02)


def test_error_names_an_unsupported_transfer_syntax() -> None:
    ds = dicom(_RAMP)
    ds.PixelData = encapsulate([b"\0\0"])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")  # MPEG-4
    with pytest.raises(UnreadableImageError, match=r"MPEG-4 .*1\.2\.840\.10008\.1\.2\.4\.102"):
        _one(dicom_file(ds))


def test_error_names_the_package_of_a_missing_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = compressed(dicom(_RAMP, bits=12), JPEGLosslessSV1, tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnreadableImageError, match=r"lossless JPEG.*python-gdcm") as caught:
        _one(content)
    assert caught.value.hint == "pip install python-gdcm"


def test_damaged_lossless_jpeg_does_not_end_the_process(tmp_path: Path) -> None:
    ds = pydicom.dcmread(BytesIO(compressed(dicom(_RAMP, bits=12), JPEGLosslessSV1, tmp_path)))
    (stream,) = generate_frames(ds.PixelData, number_of_frames=1)
    # A precision of 99 bits causes a segmentation fault in GDCM 3.2.6.
    precision = stream.index(b"\xff\xc3") + 4
    ds.PixelData = encapsulate([stream[:precision] + b"\x63" + stream[precision + 1 :]])
    with pytest.raises(UnreadableImageError, match=r"damaged lossless JPEG"):
        _one(dicom_file(ds))


@pytest.mark.parametrize(("end", "error"), [(b"", "has no end"), (b"\xff\xd9", "damaged")])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless], ids=lambda uid: uid.name)
def test_truncated_frame_is_refused(syntax: UID, end: bytes, error: str, tmp_path: Path) -> None:
    ds = pydicom.dcmread(BytesIO(compressed(dicom(_RAMP, bits=12), syntax, tmp_path)))
    (stream,) = generate_frames(ds.PixelData, number_of_frames=1)
    ds.PixelData = encapsulate([stream[: len(stream) // 2] + end])
    with pytest.raises(UnreadableImageError, match=error):
        _one(dicom_file(ds))


def test_gdcm_worker_does_not_import_fxpipe() -> None:
    worker = Path(reader.__file__).with_name("gdcm_worker.py")
    done = subprocess.run([sys.executable, "-P", str(worker)], capture_output=True, check=False)
    assert b"not enough values to unpack" in done.stderr


def _bundled(name: str) -> pydicom.FileDataset:
    """A test file of pydicom, with the modality changed so that it is not refused."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    ds = pydicom.dcmread(path)
    ds.Modality = "OT"
    return ds
