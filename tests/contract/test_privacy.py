"""No output contains a text of a header, for readable, unsupported and broken files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
from bundles import paint
from click.testing import CliRunner
from factories import dicom, dicom_file
from PIL import Image, PngImagePlugin, TiffImagePlugin
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from tiny_networks import write_bundles

from pipeline.cli import main

MARK = "Zqxw"
"""Marks every text of a header; no text of fxpipe contains it, in upper or lower case."""

TEXTS = {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "UR", "AE"}
LONGEST = {"SH": 16, "AE": 16}


pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
"""A warning of pydicom about values that these tests write."""


def marked(pixels: np.ndarray, **changes: object) -> FileDataset:
    """A radiograph with a marked value for every text element of the DICOM dictionary."""
    ds = dicom(pixels)
    for tag, (vr, multiplicity, *_, keyword) in DicomDictionary.items():
        if vr in TEXTS and tag >> 16 > 0x0008 - 1 and multiplicity in ("1", "1-n") and keyword:
            ds.add_new(tag, vr, f"{MARK}{tag:08X}"[: LONGEST.get(vr, 64)])
    item = Dataset()
    item.PatientName, item.CodeMeaning = f"{MARK}^In^A^Sequence", f"{MARK} meaning"
    ds.RequestAttributesSequence = Sequence([item])
    ds.add_new(0x00091001, "LO", f"{MARK} private")
    ds.BodyPartExamined = MARK.upper() + "^NOT A CODE"
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def rasters(pixels: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Raster files with marked texts, by name, each one whole and truncated."""
    image = Image.fromarray(pixels)
    png, exif, tiff = (
        PngImagePlugin.PngInfo(),
        Image.Exif(),
        TiffImagePlugin.ImageFileDirectory_v2(),
    )
    png.add_text("Patient", f"{MARK} png")
    exif[0x010E] = tiff[270] = f"{MARK} description"
    options: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": png}, "JPEG": {"exif": exif}, "TIFF": {"tiffinfo": tiff},
    }  # fmt: skip
    for kind, option in options.items():
        file = BytesIO()
        image.save(file, kind, **option)
        yield f"{kind.lower()}-whole", file.getvalue()
        yield f"{kind.lower()}-torn.{kind.lower()}", file.getvalue()[:-200]


def write_inputs(folder: Path) -> None:
    """Write DICOM and raster files with marked texts, readable and broken ones."""
    folder.mkdir()
    pixels = paint({"hand": 0.9}, {"hand": 0.8}).astype(np.uint8)
    content = dicom_file(marked(pixels))
    assert content.count(MARK.encode()) > 500
    files = {
        "whole": content,
        "torn.dcm": content[:-500],
        "headless.dcm": content[: len(content) // 2],
        "ct.dcm": dicom_file(marked(pixels, Modality=f"{MARK.upper()}")),
        "photometric.dcm": dicom_file(marked(pixels, PhotometricInterpretation=MARK.upper())),
        "rows.dcm": dicom_file(marked(pixels, Rows=9999)),
        "bits.dcm": dicom_file(marked(pixels, BitsStored=17)),
        "window.dcm": content.replace(b"DX", b"CR", 1),
        **dict(rasters(pixels)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)


def find_mark(folder: Path, printed: str) -> list[str]:
    """Places of the mark: names and contents of files, and the printed output."""
    mark = re.compile(MARK.encode(), re.IGNORECASE)
    wide = re.compile(MARK.encode("utf-16-le"), re.IGNORECASE)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    places = [str(path) for path in folder.rglob("*") if mark.search(str(path.name).encode())]
    for path in files:
        content = path.read_bytes()
        if mark.search(content) or wide.search(content):
            places.append(f"in {path}")
    return places + (["printed"] if mark.search(printed.encode()) else [])


def invoke(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code in (0, 1), result.output
    return result.output


def test_run_with_every_output(tmp_path):
    write_inputs(tmp_path / "in")
    weights = write_bundles(tmp_path / "weights")
    out = tmp_path / "out"
    printed = invoke(
        *("run", "--input", tmp_path / "in", "--output", out / "results", "--weights", weights),
        *("--dicom-out", out / "objects", "--report", "--fhir", "--heatmaps", "all"),
        *("--device", "cpu"),
    )
    rows = (out / "results/results.csv").read_text().splitlines()
    assert len(rows) == 1 + len(list((tmp_path / "in").iterdir()))
    assert list((out / "objects").iterdir())
    assert find_mark(out, printed) == []


def test_kept_identifiers_are_found(tmp_path):
    """The search finds the mark where identifiers are kept."""
    write_inputs(tmp_path / "in")
    weights = write_bundles(tmp_path / "weights")
    out = tmp_path / "out"
    printed = invoke(
        *("run", "--input", tmp_path / "in", "--output", out, "--weights", weights),
        *("--identifiers", "keep", "--fhir", "--device", "cpu"),
    )
    where = " ".join(find_mark(out, printed))
    assert "results.csv" in where
    assert "results.fhir.json" in where


def test_training_table_and_its_audit(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    headers = [{"PatientID": f"{MARK}-{n:04d}", "BodyPartExamined": "HAND"} for n in range(9)]
    root = layouts.studies(tmp_path, headers)
    (root / "odd.dcm").write_bytes(dicom_file(marked(pixels, SOPInstanceUID="2.25.777"))[:-900])
    labels = layouts.sheet(
        tmp_path / "labels.csv",
        [["PatientID", "fractured"], *([f"{MARK}-{n:04d}", n % 2] for n in range(8))],
    )
    out = tmp_path / "out"
    out.mkdir()
    table = out / "index.csv"
    printed = invoke("index", "--input", root, "--labels", labels, "--parts", 3, "--output", table)
    printed += invoke("audit", "--index", table, "--output", out / "audit")
    assert find_mark(out, printed) == []


@pytest.mark.parametrize("text", [f"a {MARK.lower()} b", MARK.upper()])
def test_search_finds_the_mark(tmp_path, text):
    (tmp_path / "a").write_text(text)
    assert find_mark(tmp_path, "") == [f"in {tmp_path / 'a'}"]
    assert find_mark(tmp_path, text)[-1] == "printed"
