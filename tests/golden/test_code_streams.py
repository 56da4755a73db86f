"""Code streams: their header is compared with the DICOM header and takes precedence."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import compressed, dicom, dicom_file, ramp, raster
from htj2k_streams import STREAMS
from malicious_files import private_file, with_syntax
from PIL import features
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
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
from unusual_files import changed, with_stream

from pipeline.domain import XrayImage
from pipeline.errors import UnreadableImageError
from pipeline.io import decode
from pipeline.io.codestream import Coding, read_codestream
from pipeline.io.rle import rows_end_at

_RAMP = ramp(64, 48, 0, 4095)
_EIGHT = ramp(64, 48, 0, 255, np.uint8)
_ALL = (
    *(JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless),
    *(JPEGLSNearLossless, JPEG2000Lossless, JPEG2000, RLELossless),
)


def _all(content: bytes) -> list[XrayImage]:
    return list(decode(content, Path("x.dcm"), ""))


def _one(content: bytes) -> XrayImage:
    (image,) = _all(content)
    return image


def _picture(syntax: UID, folder: Path) -> bytes:
    eight = syntax == JPEGBaseline8Bit
    ds = dicom(_EIGHT) if eight else dicom(_RAMP, bits=12)
    return compressed(ds, syntax, folder)


def _stream(content: bytes) -> bytes:
    from io import BytesIO

    return next(generate_frames(dcmread(BytesIO(content)).PixelData, number_of_frames=1))


# ------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("syntax", _ALL, ids=lambda uid: uid.name)
def test_swapped_rows_and_columns_are_corrected(syntax: UID, tmp_path: Path) -> None:
    content = _picture(syntax, tmp_path)
    correct, corrected = _one(content), _one(changed(content, Rows=48, Columns=64))
    np.testing.assert_array_equal(corrected.pixels, correct.pixels)
    (flag,) = corrected.flags
    assert flag.name == "header-mended"
    assert "Rows and Columns were swapped" in flag.reason
    assert correct.flags == ()


@pytest.mark.parametrize("rows", [32, 96, 64])
@pytest.mark.parametrize("syntax", _ALL[:-1], ids=lambda uid: uid.name)
def test_other_sizes_are_refused_even_with_as_many_pixels(
    syntax: UID, rows: int, tmp_path: Path
) -> None:
    columns = 50 if rows == 64 else 64 * 48 // rows
    content = changed(_picture(syntax, tmp_path), Rows=rows, Columns=columns)
    with pytest.raises(
        UnreadableImageError, match=rf"a code stream of 48 x 64 px, expected {columns} x {rows}"
    ):
        _one(content)


def test_size_of_every_frame_is_checked(tmp_path: Path) -> None:
    upright, transposed = (raster(pixels, "JPEG", quality=100) for pixels in (_EIGHT, _EIGHT.T))
    ds = with_stream(dicom(_EIGHT, NumberOfFrames=2), JPEGBaseline8Bit, upright, transposed)
    images = decode(dicom_file(ds), Path("x.dcm"), "")
    assert next(images).pixels.shape == (64, 48)
    with pytest.raises(UnreadableImageError, match="a code stream of 64 x 48 px"):
        next(images)


@pytest.mark.parametrize("samples", [1, 3])
def test_another_number_of_samples_is_refused(samples: int) -> None:
    colours = np.stack([_EIGHT] * 3, -1)
    stream = raster(_EIGHT if samples == 1 else colours, "JPEG")
    ds = with_stream(dicom(colours if samples == 1 else _EIGHT), JPEGBaseline8Bit, stream)
    with pytest.raises(UnreadableImageError, match=rf"code stream of {samples} samples per pixel"):
        _one(dicom_file(ds))


@pytest.mark.parametrize("width", [3, 48, 64, 700])
def test_rle_runs_end_at_the_end_of_a_row(width: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4, (90, width), np.uint8)
    frame = _stream(compressed(dicom(noise), RLELossless, tmp_path))
    assert rows_end_at(frame, width)
    assert not rows_end_at(frame, width + 1)


# ------------------------------------------------------------------------ coding


@pytest.mark.parametrize("stored", [8, 12, 16])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSLossless])
def test_8_bit_stream_with_a_16_bit_header_is_read(
    syntax: UID, stored: int, tmp_path: Path
) -> None:
    if syntax == JPEGLSLossless:
        content = compressed(dicom(_EIGHT), syntax, tmp_path)
    else:
        stream = raster(_EIGHT, "JPEG", quality=100)
        content = dicom_file(with_stream(dicom(_EIGHT), syntax, stream))
    image = _one(changed(content, BitsAllocated=16, BitsStored=stored, HighBit=stored - 1))
    np.testing.assert_allclose(image.pixels, _EIGHT / 255, atol=2 / 255)


@pytest.mark.parametrize("declared", [*_ALL[:-1], HTJ2KLossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("actual", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_decoder_is_chosen_by_the_code_stream(declared: UID, actual: UID, tmp_path: Path) -> None:
    stream = _stream(_picture(actual, tmp_path))
    image = _one(dicom_file(with_stream(dicom(_RAMP, bits=12), declared, stream)))
    np.testing.assert_allclose(image.pixels, _RAMP / 4095, atol=1e-6)
    code = read_codestream(stream)
    assert code is not None
    family = {declared, actual} in (
        {JPEGLosslessSV1, JPEGLossless},
        {JPEGLSLossless, JPEGLSNearLossless},
        {JPEG2000Lossless, JPEG2000},
    )
    reasons = [flag.reason for flag in image.flags]
    expected = [] if family or declared == actual else [f"contains {code.coding.value}"]
    assert [re.findall(r"contains .*", reason)[0] for reason in reasons] == expected


@pytest.mark.parametrize("native", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("wrapped", [True, False], ids=["encapsulated", "native"])
def test_error_names_compressed_data_in_an_uncompressed_transfer_syntax(
    native: UID, wrapped: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48), np.uint8)
    stream = raster(noise, "JPEG", quality=100)
    assert len(stream) > noise.size  # so that the data is not too short for the picture
    ds = dicom(noise)
    ds.PixelData = encapsulate([stream]) if wrapped else stream + b"\0" * (len(stream) % 2)
    with pytest.raises(UnreadableImageError, match=r"compressed pixel data \(JPEG\) in transfer"):
        _one(dicom_file(ds, native))


def test_error_names_uncompressed_data_in_a_compressed_transfer_syntax() -> None:
    content = with_syntax(dicom_file(dicom(_EIGHT)), JPEGBaseline8Bit)
    with pytest.raises(UnreadableImageError, match=r"not encapsulated.*compressed.*JPEG Baseline"):
        _one(content)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression"),
        ("1.2.840.10008.1.2.4.112", "JPEG XL"),
        ("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression"),
    ],
)
def test_transfer_syntaxes_newer_than_pydicom_are_named(uid: str, name: str) -> None:
    content = private_file(with_stream(dicom(_EIGHT), UID(uid), b"\xff\x0a"))
    with pytest.raises(UnreadableImageError, match=rf"syntax {name} \({uid}\) is not supported"):
        _one(content)


# ------------------------------------------------------------------------ HTJ2K


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
@pytest.mark.parametrize(("name", "white"), [("grey8", 255), ("grey12", 4095), ("grey16", 65535)])
def test_reversible_htj2k_gives_the_stored_values(syntax: UID, name: str, white: int) -> None:
    pixels = ramp(64, 48, 0, white, np.uint8 if white == 255 else np.uint16)
    bits = white.bit_length()
    image = _one(dicom_file(with_stream(dicom(pixels, bits=bits), syntax, STREAMS[name])))
    np.testing.assert_allclose(image.pixels, pixels / white, atol=1e-6)
    assert image.flags == ()


def test_irreversible_htj2k_is_within_a_few_levels() -> None:
    image = _one(dicom_file(with_stream(dicom(_RAMP, bits=12), HTJ2K, STREAMS["lossy12"])))
    np.testing.assert_allclose(image.pixels, _RAMP / 4095, atol=8 / 4095)


def test_htj2k_colour_becomes_luminance() -> None:
    channels = [ramp(16, 12, *ends, np.uint8) for ends in ((0, 255), (255, 0), (100, 120))]
    ds = with_stream(dicom(np.stack(channels, -1)), HTJ2KLossless, STREAMS["rgb8"])
    ds.PhotometricInterpretation = "YBR_RCT"
    expected = np.stack(channels, -1) @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(_one(dicom_file(ds)).pixels, expected, atol=1e-6)


def test_htj2k_with_swapped_sides_and_truncated_htj2k() -> None:
    ds = with_stream(dicom(_EIGHT), HTJ2KLossless, STREAMS["grey8"])
    content = dicom_file(copy.deepcopy(ds))
    np.testing.assert_array_equal(
        _one(changed(content, Rows=48, Columns=64)).pixels, _one(content).pixels
    )
    with pytest.raises(UnreadableImageError, match="frame has no end: the file is truncated"):
        _one(dicom_file(with_stream(ds, HTJ2KLossless, STREAMS["grey8"][:-60])))


def test_error_names_htj2k_if_openjpeg_is_too_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "version", lambda name: "2.4.0")
    content = dicom_file(with_stream(dicom(_EIGHT), HTJ2KLossless, STREAMS["grey8"]))
    with pytest.raises(UnreadableImageError, match="decoder for High-Throughput JPEG 2000 is not"):
        _one(content)


# ------------------------------------------------------------------------ header of the code stream


@pytest.mark.parametrize(
    ("syntax", "coding"),
    [
        (JPEGBaseline8Bit, Coding.JPEG),
        (JPEGLosslessSV1, Coding.LOSSLESS_JPEG),
        (JPEGLSLossless, Coding.JPEG_LS),
        (JPEG2000Lossless, Coding.JPEG_2000),
    ],
)
def test_header_of_a_code_stream(syntax: UID, coding: Coding, tmp_path: Path) -> None:
    code = read_codestream(_stream(_picture(syntax, tmp_path)))
    assert code is not None
    assert (code.coding, code.rows, code.columns, code.samples) == (coding, 64, 48, 1)


def test_code_stream_in_the_boxes_of_a_jp2_file_is_read(tmp_path: Path) -> None:
    boxed = raster(_EIGHT, "JPEG2000", irreversible=False)
    assert boxed[4:8] == b"jP  "
    code = read_codestream(boxed)
    assert code is not None
    assert (code.rows, code.columns, code.bits) == (64, 48, 8)
    image = _one(dicom_file(with_stream(dicom(_EIGHT), JPEG2000Lossless, boxed)))
    np.testing.assert_allclose(image.pixels, _EIGHT / 255, atol=1e-6)


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\xff", b"\xff\x4f\xff\x51\0", b"abc"],
)
def test_invalid_or_truncated_code_stream_gives_none(frame: Any) -> None:
    assert read_codestream(frame) is None
