"""Look-up tables: first input value and white level, compared with DCMTK."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_readers import by_dcmtk
from factories import dicom, dicom_file, lut, ramp
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.io import decode

_RAMP = ramp(64, 48, 0, 4095)
_SIGNED = ramp(64, 48, -2048, 2047, np.int16)
_CURVE = np.rint(4095 * (np.arange(4096) / 4095) ** 1.7).astype(int).tolist()
_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_HOUNSFIELD = {"RescaleSlope": 1, "RescaleIntercept": -1024}


def _displayed(content: bytes) -> np.ndarray:
    (image,) = decode(content, Path("x.dcm"), "")
    return image.pixels


@pytest.mark.parametrize("syntax", _SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize(
    ("pixels", "header", "dcmtk_options"),
    [
        (_RAMP, {**_HOUNSFIELD, "VOILUTSequence": lut(_CURVE, -1024, 12)}, ("+Wl", "1")),
        (_RAMP, {"VOILUTSequence": lut(_CURVE[:3000], 500, 12)}, ("+Wl", "1")),
        (_SIGNED, {"VOILUTSequence": lut(_CURVE, -2048, 12)}, ("+Wl", "1")),
        (_SIGNED, {"ModalityLUTSequence": lut(_CURVE, -2048, 16)}, ("+Wm",)),
        (_RAMP, {"ModalityLUTSequence": lut(_CURVE, 0, 16)}, ("+Wm",)),
        (
            _RAMP * 16,
            {"VOILUTSequence": lut(list(range(40_000, 65_536)), 40_000, 16)},
            ("+Wl", "1"),
        ),
    ],
    ids=["rescaled below 0", "from 500", "signed", "signed modality", "modality", "from 40000"],
)
def test_first_input_of_a_table_matches_dcmtk(
    syntax: UID, pixels: Any, header: dict[str, Any], dcmtk_options: tuple[str, ...], tmp_path: Path
) -> None:
    bits = 12 if pixels.max() < 4096 else 16
    content = dicom_file(copy.deepcopy(dicom(pixels, bits=bits, **header)), syntax)
    np.testing.assert_allclose(
        _displayed(content), by_dcmtk(content, tmp_path, *dcmtk_options), atol=1 / 255
    )


@pytest.mark.parametrize(("vr", "first"), [("US", 65536 - 1024), ("SS", -1024)])
def test_sign_of_the_first_input_follows_the_pixel_values(vr: str, first: int) -> None:
    ds = dicom(_RAMP, bits=12, **_HOUNSFIELD, VOILUTSequence=lut(_CURVE, -1024, 12))
    ds.VOILUTSequence[0].add_new("LUTDescriptor", vr, [4096, first, 12])
    np.testing.assert_allclose(_displayed(dicom_file(ds)), np.take(_CURVE, _RAMP) / 4095, atol=1e-6)


def test_negative_first_input_of_unsigned_values_is_accepted_if_plausible() -> None:
    # Read as unsigned, as in the standard, the table would start at 65526, above all values.
    ds = dicom(np.array([[0, 10, 20]], np.uint16), bits=12)
    ds.VOILUTSequence = lut(list(range(0, 310, 10)), -10, 16)
    np.testing.assert_allclose(_displayed(dicom_file(ds)), [[100 / 511, 200 / 511, 300 / 511]])


@pytest.mark.parametrize("declared", [12, 16])
def test_white_is_derived_from_the_entries_not_the_descriptor(declared: int) -> None:
    content = dicom_file(dicom(_RAMP, bits=12, VOILUTSequence=lut(_CURVE, 0, declared)))
    np.testing.assert_allclose(_displayed(content), np.take(_CURVE, _RAMP) / 4095, atol=1e-6)


def test_dark_8_bit_table_is_not_stretched() -> None:
    actual = _displayed(
        dicom_file(dicom(np.array([[0, 1]], np.uint8), VOILUTSequence=lut([0, 51], 0, 8)))
    )
    np.testing.assert_allclose(actual, [[0.0, 0.2]])


@pytest.mark.parametrize("syntax", _SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize(("bits", "first"), [(8, 0), (16, 0), (16, 100), (16, -50)])
def test_palettes_match_dcmtk(syntax: UID, bits: int, first: int, tmp_path: Path) -> None:
    entries, word_type = 200, ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    palette: dict[str, Any] = {}
    for number, colour in enumerate(("Red", "Green", "Blue"), 1):
        table = np.arange(entries) * number % entries / (entries - 1)
        data = np.rint(table * (2**bits - 1)).astype("u1" if bits == 8 else "<u2")
        as_words = np.frombuffer(data.tobytes(), "<u2").astype(word_type)
        palette[f"{colour}PaletteColorLookupTableData"] = as_words.tobytes()
    dtype = np.int16 if first < 0 else np.uint16
    ds = dicom(
        ramp(64, 48, first, first + entries - 1, dtype),
        PhotometricInterpretation="PALETTE COLOR",
        **palette,
    )
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTableDescriptor"
        ds.add_new(keyword, "SS" if first < 0 else "US", [entries, first, bits])
    content = dicom_file(ds, syntax)
    np.testing.assert_allclose(_displayed(content), by_dcmtk(content, tmp_path), atol=1.5 / 255)
