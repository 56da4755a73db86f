"""One radiograph in many unusual files: the outcome of the plain file, or an error with a reason.

The outcomes are compared with that of the plain file, so they do not depend on the weights.
"""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from click.testing import CliRunner
from factories import compressed, dicom, dicom_file, lut, raster
from malicious_files import private_file
from PIL import Image
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from unusual_files import bare, bmp32, changed, groups, item, png16, tiff, with_stream, with_value

from pipeline.cli import main

ROOT = Path(__file__).parents[2]
EIGHT = np.asarray(Image.open(ROOT / "samples" / "IMG0000049.jpg").convert("L"))
TWELVE = EIGHT.astype(np.uint16) * 16
WINDOW: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}
HALF: dict[str, Any] = {"WindowCenter": 512, "WindowWidth": 1024}
COLOURS = np.stack([TWELVE] * 3, -1)
NEAR = 0.02
"""Tolerance of the probability: files with pixels that are not square have half the rows."""


def plain(pixels: np.ndarray = TWELVE, **header: Any) -> Any:
    return dicom(pixels, bits=12, **{**WINDOW, **header})


def same_as_the_control(folder: Path) -> dict[str, bytes]:
    """Content by file name; the part before the first dash names the group of cases."""
    curve = np.arange(4096).tolist()
    jpeg = raster(EIGHT, "JPEG", quality=95)
    height, width = EIGHT.shape
    low: dict[str, Any] = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    table = plain(WindowCenter=None, WindowWidth=None, **low, VOILUTSequence=lut(curve, -1024, 12))
    deep = plain(WindowCenter=None, WindowWidth=None, VOILUTSequence=lut(curve, 0, 16))
    swapped = {"Rows": width, "Columns": height}
    return {
        "lut-implicit.dcm": dicom_file(copy.deepcopy(table), ImplicitVRLittleEndian),
        "lut-explicit.dcm": dicom_file(table),
        "lut-of-12-bits.dcm": dicom_file(deep),
        "sides-jpeg.dcm": changed(
            dicom_file(with_stream(dicom(EIGHT), JPEGBaseline8Bit, jpeg)), **swapped
        ),
        **{
            f"sides-{syntax.keyword}.dcm": changed(compressed(plain(), syntax, folder), **swapped)
            for syntax in (JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)
        },
        "planes-16.tif": tiff(COLOURS, planes=True),
        "planes-8-tiles.tif": tiff(np.stack([EIGHT] * 3, -1), planes=True, tile_px=64),
        "high-bit.dcm": dicom_file(plain(TWELVE << 4, HighBit=15)),
        "high-bit-rle.dcm": changed(
            compressed(dicom(TWELVE << 4, **WINDOW), RLELossless, folder), BitsStored=12, HighBit=15
        ),
        "comma.dcm": with_value(plain(), "ImagerPixelSpacing", "DS", b"0,143\\0,143 "),
        "opacity.bmp": bmp32(EIGHT, np.zeros_like(EIGHT)),
        "jpeg-in-16.dcm": changed(
            dicom_file(with_stream(dicom(EIGHT), JPEGBaseline8Bit, jpeg)), BitsAllocated=16
        ),
        "modality.dcm": with_value(plain(), "Modality", "CS", b"dx"),
        "rgb16.png": png16(COLOURS),
        "grey16.png": raster(TWELVE, "PNG"),
        "two-ids.dcm": with_value(plain(), "PatientID", "LO", b"A1\\B2 "),
        "bare.dcm": bare(dicom_file(plain(), ExplicitVRBigEndian)),
        "square-dicom.dcm": dicom_file(plain(TWELVE[::2], PixelSpacing=[0.4, 0.2])),
        "square-aspect.dcm": dicom_file(plain(TWELVE[:, ::2], PixelAspectRatio=[1, 2])),
        "square-jfif.jpg": raster(EIGHT[::2], "JPEG", quality=95, dpi=(200, 100)),
        "square-tiff.tif": raster(EIGHT[::2], "TIFF", dpi=(200, 100)),
    }


def refused(folder: Path) -> dict[str, tuple[bytes, str, str]]:
    """Content, status, and a part of the error, by file name."""
    jpeg = raster(np.random.default_rng(0).integers(0, 256, EIGHT.shape, np.uint8), "JPEG")
    rle = compressed(plain(), RLELossless, folder)
    native = dicom(EIGHT)
    native.PixelData = factories.raster(EIGHT, "JPEG", quality=100) + bytes(EIGHT.size)
    xl = private_file(with_stream(plain(), UID("1.2.840.10008.1.2.4.110"), b"\xff\x0a"))
    odd_size = dicom_file(with_stream(dicom(EIGHT[:, :200]), JPEGBaseline8Bit, jpeg))
    too_much = dicom_file(dicom(TWELVE * 16 + 15, bits=10))
    grey = np.full_like(EIGHT, 128)
    return {
        "cut.dcm": (rle[: len(rle) // 2], "failed", "truncated"),
        "native-jpeg.dcm": (
            dicom_file(native, ExplicitVRLittleEndian),
            "failed",
            "compressed pixel data (JPEG)",
        ),
        "jpeg-xl.dcm": (xl, "failed", "JPEG XL"),
        "other-size.dcm": (odd_size, "failed", "a code stream of"),
        "more-bits.dcm": (too_much, "failed", "more bits than the 10"),
        "blank.png": (raster(grey, "PNG"), "unsupported", "blank"),
        "blank.dcm": (dicom_file(dicom(grey)), "unsupported", "blank"),
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of the results by path, from one run with all files."""
    folder = tmp_path_factory.mktemp("odd")
    place = folder / "input"
    place.mkdir()
    files = {
        "control.dcm": dicom_file(plain()),
        "half.dcm": dicom_file(plain(**HALF)),
        "half-shared.dcm": dicom_file(
            plain(SharedFunctionalGroupsSequence=groups(FrameVOILUTSequence=item(**HALF)))
        ),
        **same_as_the_control(folder),
        **{name: content for name, (content, _, _) in refused(folder).items()},
    }
    for name, content in files.items():
        (place / name).write_bytes(content)
    words = ["run", "--input", str(place), "--output", str(folder), "--device", "cpu"]
    words += ["--identifiers", "keep", "--set", "isolate=false"]
    result = CliRunner().invoke(main, [*words, "--weights", str(ROOT / "weights")])
    assert result.exit_code == 1, result.output
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        by_path = {row["path"]: row for row in csv.DictReader(file)}
    assert set(by_path) == set(files)
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.dumps("A1\\B2") in "".join(lines)
    return by_path


def _near(row: dict[str, str], control: dict[str, str]) -> None:
    assert (row["status"], row["error"]) == ("ok", "")
    assert (row["regions"], row["verdict"]) == (control["regions"], control["verdict"])
    assert float(row["probability"]) == pytest.approx(float(control["probability"]), abs=NEAR)


def test_unusual_files_of_one_picture_have_its_outcome(rows, tmp_path):
    for name in same_as_the_control(tmp_path):
        _near(rows[name], rows["control.dcm"])


def test_control_differs_from_other_pictures(rows):
    """Otherwise the test above could not fail."""
    assert rows["control.dcm"]["status"] == "ok"
    assert rows["half.dcm"]["p_hand"] != rows["control.dcm"]["p_hand"]


def test_window_in_functional_groups_is_used(rows):
    for column in ("p_hand", "p_elbow", "p_shoulder", "probability", "verdict"):
        assert rows["half-shared.dcm"][column] == rows["half.dcm"][column]


def test_corrected_headers_are_flagged(rows):
    for name in ("comma.dcm", "sides-jpeg.dcm"):
        assert rows[name]["flags"] == "header-mended"
    for name in ("square-dicom.dcm", "square-jfif.jpg"):
        assert rows[name]["flags"] == "not-square"
    assert rows["control.dcm"]["flags"] == ""


def test_identifier_with_several_values_stays_one_text(rows):
    assert rows["two-ids.dcm"]["patient_id"] == "A1\\B2"


def test_refused_files_have_a_reason(rows, tmp_path):
    for name, (_, status, words) in refused(tmp_path).items():
        assert rows[name]["status"] == status, name
        assert words in rows[name]["error"].removeprefix(name)
        assert rows[name]["verdict"] == ""
