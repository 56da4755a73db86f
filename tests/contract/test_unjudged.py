"""Readable files that are not radiographs are unsupported, not failed, and not in a study."""

from __future__ import annotations

import csv
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bundles import paint
from click.testing import Result
from command_line import fxpipe
from factories import IDENTIFIERS, dicom, dicom_file
from pydicom.fileset import FileSet
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
)

from pipeline.io.dicomdir import listed_study, studies_of
from pipeline.studies import pseudonym

HAND = {"hand": 0.9}
UIDS = ("1.2.826.0.1.3680043.77.1", "1.2.826.0.1.3680043.77.2")


def run(*arguments: object) -> Result:
    return fxpipe("run", "--device", "cpu", "--set", "isolate=false", *arguments)


def rows(name: str = "results") -> dict[str, dict[str, str]]:
    with Path(f"results/{name}.csv").open(encoding="utf-8", newline="") as file:
        return {row["path" if name == "results" else "study"]: row for row in csv.DictReader(file)}


def of_class(uid: str, pixels: bool = False, **attributes: Any) -> bytes:
    """A DICOM file of an SOP class, with or without pixels."""
    picture = dicom(paint(HAND, HAND) if pixels else None, **attributes)
    picture.SOPClassUID = picture.file_meta.MediaStorageSOPClassUID = UID(uid)
    return dicom_file(picture)


UNJUDGED = {
    "report.dcm": of_class("1.2.840.10008.5.1.4.1.1.88.33", Modality="SR"),
    "state.dcm": of_class(GrayscaleSoftcopyPresentationStateStorage, Modality="PR"),
    "key.dcm": of_class(KeyObjectSelectionDocumentStorage, Modality="KO"),
    "letter.dcm": of_class(EncapsulatedPDFStorage, Modality="DOC"),
    # A document with rows or with a modality of pictures is still a document.
    "letter-2.dcm": of_class(EncapsulatedPDFStorage, Modality="OT", Rows=4, Columns=4),
    "private.dcm": of_class("1.2.3.4.5", Modality="PLAN"),
    "ct.dcm": of_class(CTImageStorage, True, Modality="CT"),
    "ct-unnamed.dcm": of_class(CTImageStorage, True, Modality=None),
    "mammography.dcm": dicom_file(dicom(paint(HAND), Modality="MG")),
    "fluoroscopy.dcm": dicom_file(dicom(paint(HAND), Modality="RF")),
    "raw.dcm": dicom_file(dicom(paint(HAND), PresentationIntentType="FOR PROCESSING")),
    "raw-class.dcm": of_class(DigitalXRayImageStorageForProcessing, True),
    "._b.jpg": struct.pack(">II", 0x00051607, 0x00020000) + bytes(90),
    "._c.dcm": b"another file of macOS",
}


def test_readable_objects_are_unsupported_and_not_in_the_study(place):
    folder = place / "in"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(dicom_file(dicom(paint(HAND, HAND))))
    for name, content in UNJUDGED.items():
        (folder / name).write_bytes(content)
    result = run("--input", "in")
    assert result.exit_code == 0, result.output
    by_path = rows()
    assert by_path.pop("a.dcm")["status"] == "ok"
    assert {name: row["status"] for name, row in by_path.items()} == dict.fromkeys(
        UNJUDGED, "unsupported"
    )
    for name, row in by_path.items():
        assert row["error"].startswith(f"{name}: found "), row
        assert "expected" in row["error"]
        assert not any(word in row["error"] for word in IDENTIFIERS)
        assert row["study"] == ""
    (study,) = rows("studies").values()
    assert (study["pictures"], study["ok"]) == ("1", "1")
    assert "1 study: 1 positive" in result.stdout


@pytest.mark.parametrize(
    "content",
    [
        of_class(ComputedRadiographyImageStorage, Modality="CR"),  # no pixel data, no rows
        of_class("1.2.3.4.5", Modality=None),
        of_class(ComputedRadiographyImageStorage, Modality="CR", Rows=4, Columns=4),
    ],
)
def test_radiograph_without_pixels_is_failed_in_its_study(place, content):
    (place / "in").mkdir()
    (place / "in/a.dcm").write_bytes(content)
    assert run("--input", "in").exit_code == 1
    assert rows()["a.dcm"]["status"] == "failed"
    (study,) = rows("studies").values()
    assert study["failed"] == "1"


# ---------------------------------------------------------------------------------- media


def medium(folder: Path) -> list[Path]:
    """Write a DICOM medium with two studies of two pictures; returns its picture files in order."""
    files = FileSet()
    for number in range(4):
        picture = dicom(
            paint(HAND, {"hand": 0.9 if number == 3 else 0.1}), StudyInstanceUID=UIDS[number // 2],
            SOPInstanceUID=f"2.25.{number + 1}", SeriesInstanceUID=f"2.25.9{number // 2}",
            StudyDate="20230101", StudyTime="101010", StudyID=str(number // 2), SeriesNumber=1,
            InstanceNumber=number, AccessionNumber="", PatientName="Invented^Person",
        )  # fmt: skip
        files.add(picture)
    files.write(folder)
    files._stage["t"].cleanup()  # pydicom offers no public way to remove its temporary folder
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR")


def test_run_on_a_medium_uses_its_studies(place):
    _, without_study, damaged, _ = medium(place / "in")
    header = dicom(paint(HAND, HAND), StudyInstanceUID=None)
    without_study.write_bytes(dicom_file(header))
    damaged.write_bytes(b"\xff" * 4096)
    result = run("--input", "in")
    assert result.exit_code == 1  # the damaged picture
    assert rows()["DICOMDIR"]["status"] == "unsupported"
    studies = rows("studies")
    assert list(studies) == [pseudonym(uid) for uid in UIDS]
    first, second = studies.values()
    assert (first["pictures"], first["ok"], first["verdict"]) == ("2", "2", "positive")
    assert (second["pictures"], second["ok"], second["failed"]) == ("2", "1", "1")
    assert "2 studies: 2 positive" in result.stdout


def test_files_of_a_medium_may_have_lower_case_names(tmp_path):
    for path in [*medium(tmp_path), tmp_path / "DICOMDIR"]:
        path.rename(path.with_name(path.name.lower()))
    (tmp_path / "dicomdir").rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "dicomdir")
    uids = [listed_study(path) for path in sorted(tmp_path.rglob("im*"))]
    assert Counter(uids) == Counter(UIDS * 2)
    assert listed_study(tmp_path / "other") is None


def test_cyclic_directory_is_read_once(tmp_path):
    from pydicom import dcmread

    medium(tmp_path)
    ds = dcmread(tmp_path / "DICOMDIR")
    whole = studies_of(ds)
    assert len(whole) == 4
    first = ds.DirectoryRecordSequence[0]
    for record in ds.DirectoryRecordSequence:
        record.OffsetOfTheNextDirectoryRecord = first.seq_item_tell
    assert set(studies_of(ds)) <= set(whole)
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "DICOMDIR").read_bytes()[:600])
    assert listed_study(tmp_path / "IM1") is None
