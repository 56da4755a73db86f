"""Display values of DICOM files, compared with the formulas of the standard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from factories import IDENTIFIERS, dicom, dicom_file, lut, ramp
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
)

from pipeline.domain import XrayImage
from pipeline.errors import ImageError, NotARadiographError, UnreadableImageError
from pipeline.io import decode, object_types
from pipeline.io import dicom as reader
from pipeline.io.grey import modality_values, voi_values

_RAMP = ramp(64, 48, 0, 4095)


def _all(content: bytes) -> list[XrayImage]:
    return list(decode(content, Path("x.dcm"), ""))


def _one(content: bytes) -> XrayImage:
    (image,) = _all(content)
    return image


def _pixels(
    values: list[list[int]], dtype: Any = np.uint16, **attributes: Any
) -> list[list[float]]:
    pixels = _one(dicom_file(dicom(np.array(values, dtype), **attributes))).pixels
    rows: list[list[float]] = np.round(pixels.astype(float), 5).tolist()
    return rows


# ------------------------------------------------------------------------ grey values


def test_range_of_the_frame_is_stretched_without_a_window() -> None:
    assert _pixels([[100, 200, 300]]) == [[0.0, 0.5, 1.0]]
    assert _pixels([[7, 7]]) == [[0.0, 0.0]]


def test_linear_window_follows_the_standard() -> None:
    # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5), clipped.
    actual = _pixels([[0, 50, 100, 150, 200]], WindowCenter=100, WindowWidth=101)
    assert actual == [[0.0, 0.005, 0.505, 1.0, 1.0]]


def test_linear_exact_window_follows_the_standard() -> None:
    actual = _pixels(
        [[0, 50, 100, 150, 200]],
        WindowCenter=100,
        WindowWidth=100,
        VOILUTFunction="LINEAR_EXACT",
    )
    assert actual == [[0.0, 0.0, 0.5, 1.0, 1.0]]


def test_sigmoid_window_follows_the_standard() -> None:
    actual = _pixels([[0, 100, 200]], WindowCenter=100, WindowWidth=100, VOILUTFunction="SIGMOID")
    expected = [1 / (1 + np.exp(4)), 0.5, 1 / (1 + np.exp(-4))]
    np.testing.assert_allclose(actual, [expected], atol=1e-5)


def test_first_of_several_windows_is_used() -> None:
    one = _pixels([[0, 60, 200]], WindowCenter=100, WindowWidth=101)
    several = _pixels([[0, 60, 200]], WindowCenter=[100, 9], WindowWidth=[101, 3])
    assert several == one


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 5},
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": 5, "WindowWidth": -3},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"},
    ],
)
def test_invalid_window_is_ignored(window: dict[str, Any]) -> None:
    assert _pixels([[0, 10, 20]], **window) == [[0.0, 0.5, 1.0]]


def test_window_applies_to_rescaled_values() -> None:
    actual = _pixels(
        [[0, 500, 1000]],
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=0,
        WindowWidth=1000,
        VOILUTFunction="LINEAR_EXACT",
    )
    assert actual == [[0.0, 0.5, 1.0]]
    assert _pixels([[0, 500, 1000]], RescaleSlope=-1, RescaleIntercept=0) == [[1.0, 0.5, 0.0]]


def test_monochrome1_with_inverse_presentation_is_inverted_once() -> None:
    assert _pixels([[0, 1, 4]], PhotometricInterpretation="MONOCHROME1") == [[1.0, 0.75, 0.0]]
    assert _pixels([[0, 1, 4]], PresentationLUTShape="INVERSE") == [[1.0, 0.75, 0.0]]
    both = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    assert _pixels([[0, 1, 4]], **both) == [[1.0, 0.75, 0.0]]


def test_monochrome1_is_inverted_after_its_window() -> None:
    actual = _pixels(
        [[0, 50, 100, 200]],
        PhotometricInterpretation="MONOCHROME1",
        WindowCenter=50,
        WindowWidth=100,
        VOILUTFunction="LINEAR_EXACT",
    )
    assert actual == [[1.0, 0.5, 0.0, 0.0]]


def test_signed_values_of_fewer_bits_are_sign_extended() -> None:
    # Stored 0xFFF in 12 bits is -1, whether or not the four upper bits repeat the sign.
    assert _pixels([[0xFFF, 0, 1]], np.int16, bits=12) == [[0.0, 0.5, 1.0]]
    assert _pixels([[-1, 0, 1]], np.int16, bits=12) == [[0.0, 0.5, 1.0]]


def test_modality_lut_clips_at_its_ends() -> None:
    actual = _pixels([[0, 10, 11, 12, 90]], ModalityLUTSequence=lut([0, 40, 100], 10, 16))
    assert actual == [[0.0, 0.0, 0.4, 1.0, 1.0]]


def test_modality_lut_can_start_below_zero() -> None:
    actual = _pixels([[-9, -2, -1, 0]], np.int16, ModalityLUTSequence=lut([0, 40, 100], -2, 16))
    assert actual == [[0.0, 0.0, 0.4, 1.0]]


def test_voi_lut_takes_precedence_over_the_window() -> None:
    actual = _pixels(
        [[0, 1, 2, 9]], VOILUTSequence=lut([0, 1023, 511], 0, 10), WindowCenter=1, WindowWidth=9
    )
    np.testing.assert_allclose(actual, [[0.0, 1.0, 511 / 1023, 511 / 1023]], atol=1e-5)


@pytest.mark.parametrize("data", [None, bytes([0, 51, 102, 255]), b"\0\0\x33\0\x66\0\xff\0"])
def test_voi_lut_of_8_bits_accepts_more_input_values(data: bytes | None) -> None:
    # The function of pydicom overflows here: it calculates 1002 - 1000 + 256 in eight bits.
    actual = _pixels([[0, 1001, 1002, 4095]], VOILUTSequence=lut([0, 51, 102, 255], 1000, 8, data))
    assert actual == [[0.0, 0.2, 0.4, 1.0]]


def test_lut_that_contradicts_its_descriptor_is_refused() -> None:
    broken = lut([0, 1, 2, 3], 0, 16, b"\0\0")
    with pytest.raises(UnreadableImageError, match=r"^x\.dcm: cannot decode .*ValueError"):
        _pixels([[0, 1]], VOILUTSequence=broken)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_matches_pydicom(function: str) -> None:
    window = {"WindowCenter": 1800.5, "WindowWidth": 2222, "VOILUTFunction": function}
    ds = dicom(_RAMP, bits=12, **window)
    values = np.arange(4096, dtype=np.float64)
    reference = apply_windowing(values, ds) / 4095
    np.testing.assert_allclose(voi_values(values, ds, False), reference, atol=1e-9)


@pytest.mark.parametrize(
    "header",
    [
        {"RescaleSlope": 1.5, "RescaleIntercept": -7},
        {"ModalityLUTSequence": lut([5, 9, 200, 3], 2, 16)},
    ],
)
def test_modality_step_matches_pydicom(header: dict[str, Any]) -> None:
    ds = dicom(_RAMP, **header)
    values = np.arange(100, dtype=np.uint16)
    reference = apply_modality_lut(values, ds)
    np.testing.assert_allclose(modality_values(values.astype(float), ds, False), reference)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_excluded_from_the_stretch(photometric: str) -> None:
    actual = _pixels(
        [[4095, 100, 200, 300]],
        PixelPaddingValue=4095,
        PhotometricInterpretation=photometric,
    )
    expected = [0.0, 0.5, 1.0] if photometric == "MONOCHROME2" else [1.0, 0.5, 0.0]
    assert actual == [[0.0, *expected]]


def test_padding_range() -> None:
    actual = _pixels([[0, 1, 3, 5, 7]], PixelPaddingValue=0, PixelPaddingRangeLimit=1)
    assert actual == [[0.0, 0.0, 0.0, 0.5, 1.0]]


def test_picture_of_padding_only_is_black() -> None:
    assert _pixels([[9, 9]], PixelPaddingValue=9) == [[0.0, 0.0]]


def test_palette_is_looked_up() -> None:
    palette: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        palette[f"{colour}PaletteColorLookupTableData"] = bytes([51, 255])
    actual = _pixels([[0, 1]], np.uint8, PhotometricInterpretation="PALETTE COLOR", **palette)
    assert actual == [[0.2, 1.0]]


# ------------------------------------------------------------------------ frames and header


def test_frames_are_numbered_and_single_images_are_not() -> None:
    first, second = _all(dicom_file(dicom(np.stack([_RAMP, _RAMP[::-1]]))))
    assert (first.source.frame, second.source.frame) == (0, 1)
    np.testing.assert_array_equal(first.pixels, second.pixels[::-1])
    assert _one(dicom_file(dicom(_RAMP[None]))).source.frame is None


def test_detector_spacing_takes_precedence_over_calibrated_spacing() -> None:
    both = dicom(_RAMP, ImagerPixelSpacing=[0.2, 0.2], PixelSpacing=[0.3, 0.3])
    assert _one(dicom_file(both)).spacing_mm == (0.2, 0.2)
    assert _one(dicom_file(dicom(_RAMP, PixelSpacing=[0.3, 0.3]))).spacing_mm == (0.3, 0.3)
    assert _one(dicom_file(dicom(_RAMP, PixelSpacing=[0, 0]))).spacing_mm is None
    assert _one(dicom_file(dicom(_RAMP))).spacing_mm is None


def test_header_subset_has_coded_values_and_no_identifiers() -> None:
    ds = dicom(_RAMP, BodyPartExamined="HAND", ViewPosition="PA", ImageLaterality="L")
    header = _one(dicom_file(ds)).dicom
    assert header == {
        "Modality": "DX",
        "BodyPartExamined": "HAND",
        "ViewPosition": "PA",
        "ImageLaterality": "L",
        "PhotometricInterpretation": "MONOCHROME2",
        "TransferSyntaxUID": "1.2.840.10008.1.2.1",
    }


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_name_in_a_coded_field_is_dropped() -> None:
    header = _one(dicom_file(dicom(_RAMP, BodyPartExamined=factories.PATIENT_NAME))).dicom
    assert header is not None
    assert "BodyPartExamined" not in header


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("modality", object_types.MODALITIES)
def test_modalities_of_radiographs_are_accepted(modality: str) -> None:
    assert _one(dicom_file(dicom(_RAMP, Modality=modality))).pixels.shape == _RAMP.shape


def test_missing_modality_is_accepted() -> None:
    assert _one(dicom_file(dicom(_RAMP, Modality=None))).pixels.shape == _RAMP.shape
    assert _one(dicom_file(dicom(_RAMP, Modality=""))).pixels.shape == _RAMP.shape


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "NM", "PT", "MG", "RF", "XA", "IO", "PX"])
def test_error_names_another_modality(modality: str) -> None:
    with pytest.raises(NotARadiographError, match=rf"modality {modality}, expected .*CR, DX"):
        _one(dicom_file(dicom(_RAMP, Modality=modality)))


def test_raw_detector_data_is_refused() -> None:
    with pytest.raises(NotARadiographError, match="FOR PROCESSING"):
        _one(dicom_file(dicom(_RAMP, PresentationIntentType="FOR PROCESSING")))


def test_objects_without_a_picture_are_refused() -> None:
    with pytest.raises(NotARadiographError, match=r"modality SR\) without a picture"):
        _one(dicom_file(dicom(None, Modality="SR")))
    with pytest.raises(UnreadableImageError, match="without its pixel data"):
        _one(dicom_file(dicom(None, Rows=4, Columns=4)))


def test_error_for_truncated_pixels_gives_both_lengths() -> None:
    content = dicom_file(dicom(_RAMP))
    with pytest.raises(
        UnreadableImageError, match=r"found 6044 bytes .*, expected 6144: .*truncated"
    ):
        _one(content[:-100])


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 px"),
        ({"Rows": 0}, "expected 1 to"),
        ({"BitsStored": 0}, "0 bits per pixel"),
        ({"PhotometricInterpretation": "HSV"}, "HSV"),
    ],
)
def test_impossible_headers_are_refused(attributes: dict[str, Any], error: str) -> None:
    with pytest.raises(UnreadableImageError, match=error):
        _one(dicom_file(dicom(_RAMP, **attributes)))


def test_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = dicom_file(dicom(np.zeros((2000, 2000), np.uint8)), DeflatedExplicitVRLittleEndian)
    assert len(content) < 10_000
    monkeypatch.setattr(reader, "MAX_INFLATED_BYTES", 1_000_000)
    with pytest.raises(UnreadableImageError, match="grows beyond 1000000 bytes"):
        _one(content)


def test_errors_contain_no_identifiers() -> None:
    content = dicom_file(dicom(_RAMP))
    rng = np.random.default_rng(0)
    texts: list[str] = []
    for _ in range(300):
        broken = bytearray(content)
        for position in rng.integers(132, 700, 3):
            broken[position] = rng.integers(0, 256)
        try:
            _all(bytes(broken))
        except ImageError as error:
            texts.append(str(error) + error.hint)
    assert len(texts) > 30
    assert not [text for text in texts if any(word in text for word in IDENTIFIERS)]
