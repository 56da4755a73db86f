"""Invalid header values: the value is ignored and flagged, the picture is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from factories import dicom, dicom_file, lut, ramp
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from unusual_files import bare, groups, item, with_value

from pipeline.domain import XrayImage
from pipeline.errors import NotARadiographError, UnreadableImageError
from pipeline.io import decode, study_uid

_RAMP = ramp(64, 48, 0, 4095)
_WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
_CONTROL = dicom(_RAMP, bits=12, **_WINDOW)


def _all(content: bytes) -> list[XrayImage]:
    return list(decode(content, Path("x.dcm"), ""))


def _one(content: bytes) -> XrayImage:
    (image,) = _all(content)
    return image


def _with_value(keyword: str, vr: str, value: bytes) -> XrayImage:
    return _one(with_value(dicom(_RAMP, bits=12, **_WINDOW), keyword, vr, value))


def _control() -> np.ndarray:
    return _one(dicom_file(_CONTROL)).pixels


# ------------------------------------------------------------------------ bad values


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("ImagerPixelSpacing", "DS", b"narrow\\wide"),
        ("PixelSpacing", "DS", b"0.1\\-0.1"),
        ("PixelSpacing", "DS", b"0.1"),
        ("PixelSpacing", "DS", b"1e400\\1e400"),
        ("PixelAspectRatio", "IS", b"2:1"),
        ("PixelPaddingValue", "US", b"\x01\x02\x03"),
        ("PixelPaddingValue", "US", b"\x01\x02\x03\x04\x05"),
        ("NumberOfFrames", "IS", b"one"),
        ("NumberOfFrames", "IS", b"1.5"),
        ("HighBit", "US", b"\x01\x02\x03"),
        ("RescaleSlope", "DS", b"n/a"),
        ("RescaleIntercept", "FD", b"\0\0"),
    ],
)
def test_invalid_value_is_ignored_and_flagged(keyword: str, vr: str, value: bytes) -> None:
    image = _with_value(keyword, vr, value)
    np.testing.assert_array_equal(image.pixels, _control())
    (flag,) = image.flags
    assert flag.name == "header-mended"
    assert flag.reason == f"Header corrected: an illegal {keyword} was ignored"


def test_decimal_comma_is_read_as_a_point() -> None:
    image = _with_value("ImagerPixelSpacing", "DS", b"0,143\\0,143")
    assert image.spacing_mm == (0.143, 0.143)
    np.testing.assert_array_equal(image.pixels, _control())
    (flag,) = image.flags
    assert flag.reason.endswith("a decimal comma in ImagerPixelSpacing was read as a point")
    window = _with_value("WindowCenter", "DS", b"2048,0")
    np.testing.assert_array_equal(window.pixels, _control())


def test_invalid_window_is_ignored_and_flagged() -> None:
    image = _with_value("WindowCenter", "DS", b"centre")
    without = _one(dicom_file(dicom(_RAMP, bits=12)))
    np.testing.assert_array_equal(image.pixels, without.pixels)
    assert "an illegal WindowCenter" in image.flags[0].reason


@pytest.mark.parametrize("value", [b"", b" "])
def test_empty_value_is_not_flagged(value: bytes) -> None:
    for keyword in ("ImagerPixelSpacing", "WindowCenter", "NumberOfFrames"):
        image = _with_value(keyword, "DS" if keyword != "NumberOfFrames" else "IS", value)
        assert image.flags == ()


def test_flags_do_not_quote_values() -> None:
    name = factories.PATIENT_NAME.encode()
    for keyword in ("PixelSpacing", "WindowCenter", "RescaleSlope", "PixelPaddingValue"):
        (flag,) = _with_value(keyword, "DS", name).flags
        assert factories.PATIENT_NAME not in flag.reason


@pytest.mark.parametrize("modality", [b"dx", b"Dx", b" DX", b"dx\\cr"])
def test_lower_case_modality_is_read(modality: bytes) -> None:
    image = _with_value("Modality", "CS", modality)
    np.testing.assert_array_equal(image.pixels, _control())
    assert image.dicom is not None
    assert image.dicom["Modality"] == "DX"
    with pytest.raises(NotARadiographError, match="modality CT"):
        _with_value("Modality", "CS", b"ct")


def test_other_lower_case_coded_values_are_read() -> None:
    image = _with_value("BodyPartExamined", "CS", b"Hand")
    assert image.dicom is not None
    assert image.dicom["BodyPartExamined"] == "HAND"
    inverted = _with_value("PhotometricInterpretation", "CS", b"monochrome1")
    np.testing.assert_allclose(inverted.pixels, 1.0 - _control(), atol=1e-6)


@pytest.mark.parametrize("value", [b"A1\\B2", b"A1\\B2\\", b"\\B2"])
def test_multiple_text_values_are_one_text_as_in_the_file(value: bytes) -> None:
    image = _with_value("PatientID", "LO", value)
    assert image.identity is not None
    assert image.identity["PatientID"] == value.decode().strip()


def test_multiple_study_uids_are_one_text_for_an_unreadable_picture() -> None:
    content = with_value(dicom(_RAMP), "StudyInstanceUID", "UI", b"1.2\\1.3\0")
    assert study_uid(content, Path("lost.dcm")) == "1.2\\1.3"


# ------------------------------------------------------------------------ functional groups


def _voi(centre: float, width: float) -> dict[str, Dataset]:
    return {"FrameVOILUTSequence": item(WindowCenter=centre, WindowWidth=width)}


def _windowed(centre: float, width: float) -> np.ndarray:
    header = {"WindowCenter": centre, "WindowWidth": width}
    return _one(dicom_file(dicom(_RAMP, bits=12, **header))).pixels


def test_shared_window_takes_precedence_over_the_top_level() -> None:
    shared = groups(**_voi(512, 1024))
    for top in ({}, _WINDOW):
        image = _one(
            dicom_file(dicom(_RAMP, bits=12, SharedFunctionalGroupsSequence=shared, **top))
        )
        np.testing.assert_array_equal(image.pixels, _windowed(512, 1024))


def test_window_of_a_frame_takes_precedence_over_the_shared_one() -> None:
    frames = np.stack([_RAMP] * 3)
    header = {
        "SharedFunctionalGroupsSequence": groups(**_voi(512, 1024)),
        "PerFrameFunctionalGroupsSequence": Sequence(
            [*groups(**_voi(100, 200)), *groups(**_voi(3000, 500)), Dataset()]
        ),
    }
    first, second, third = _all(dicom_file(dicom(frames, bits=12, **header)))
    np.testing.assert_array_equal(first.pixels, _windowed(100, 200))
    np.testing.assert_array_equal(second.pixels, _windowed(3000, 500))
    np.testing.assert_array_equal(third.pixels, _windowed(512, 1024))


def test_invalid_window_of_a_frame_is_replaced_by_the_shared_one() -> None:
    header = {
        "SharedFunctionalGroupsSequence": groups(**_voi(512, 1024)),
        "PerFrameFunctionalGroupsSequence": groups(**_voi(100, 0)),
    }
    image = _one(dicom_file(dicom(_RAMP, bits=12, **header)))
    np.testing.assert_array_equal(image.pixels, _windowed(512, 1024))


def test_voi_lut_and_rescale_of_a_frame_are_used() -> None:
    table = (np.arange(4096)[::-1]).tolist()
    voi = groups(FrameVOILUTSequence=item(VOILUTSequence=lut(table, -1000, 12)))
    voi[0].PixelValueTransformationSequence = Sequence(
        [item(RescaleSlope=1, RescaleIntercept=-1000, RescaleType="US")]
    )
    image = _one(dicom_file(dicom(_RAMP, bits=12, PerFrameFunctionalGroupsSequence=voi, **_WINDOW)))
    np.testing.assert_allclose(image.pixels, 1.0 - _RAMP / 4095, atol=1e-6)


def test_functional_groups_that_are_not_sequences_are_ignored() -> None:
    image = _with_value("SharedFunctionalGroupsSequence", "LO", b"text")
    np.testing.assert_array_equal(image.pixels, _control())


# ------------------------------------------------------------ no preamble, truncated files


def test_big_endian_file_without_preamble_is_read() -> None:
    content = dicom_file(dicom(_RAMP, bits=12, **_WINDOW), ExplicitVRBigEndian)
    image = _one(bare(content))
    np.testing.assert_array_equal(image.pixels, _control())


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless])
def test_truncated_file_is_reported_as_truncated(syntax: Any) -> None:
    if syntax == RLELossless:
        content = factories.compressed(dicom(_RAMP, bits=12), syntax, Path())
    else:
        content = dicom_file(dicom(_RAMP, bits=12), syntax)
    # A file that ends after an element can be valid: a report has no pixels.
    messages = []
    for length in range(200, len(content), 97):
        with pytest.raises((UnreadableImageError, NotARadiographError)) as caught:
            _one(content[:length])
        messages.append(str(caught.value))
    assert len(messages) > 20
    assert sum("truncated" in message for message in messages) >= len(messages) - 1


def test_truncated_deflated_file_is_reported_as_truncated() -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    content = dicom_file(dicom(_RAMP), DeflatedExplicitVRLittleEndian)
    with pytest.raises(UnreadableImageError, match="truncated"):
        _one(content[:-200])
