"""Headers of received DICOM files, for queries and for the study of a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from sqlalchemy import Connection, insert, select

from ..io.dicom import parse
from ..io.header import header_text
from ..io.warning_filter import quiet
from . import tables as t

UID = re.compile(r"[0-9.]{1,64}")
"""Accepts leading zeros, because some devices write them."""
STUDY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "TimezoneOffsetFromUTC",
)  # fmt: skip
SERIES = (
    "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "BodyPartExamined",
    "Laterality", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
)  # fmt: skip
INSTANCE = (
    "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated",
)  # fmt: skip
"""Attributes returned by a query, by level (PS3.18, 10.6.3)."""
_IDENTITY = (
    "PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID",
    "SOPInstanceUID",
)  # fmt: skip
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a file's header that is stored.

    Attributes:
        columns: Values of the columns of table ``instance``.
        json: Values of :data:`STUDY`, :data:`SERIES` and :data:`INSTANCE` as DICOM JSON.
        identity: Patient and study attributes by DICOM keyword.
    """

    columns: dict[str, str]
    json: dict[str, Any]
    identity: dict[str, str]


def read_header(path: Path) -> Header | None:
    """The header of a file; None if it is not DICOM, or lacks a study or series UID."""
    try:
        with quiet():
            return _header(_dataset(path))
    # pydicom raises many exception types on malicious input.
    except Exception:  # noqa: BLE001
        return None


def _dataset(path: Path) -> Dataset:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if DeflatedExplicitVRLittleEndian.encode() in head:
        return parse(path.read_bytes(), "file")  # it limits the size of the inflated content
    tags = ["SpecificCharacterSet", *STUDY, *SERIES, *INSTANCE]
    return dcmread(path, force=True, stop_before_pixels=True, specific_tags=tags)


def _header(ds: Dataset) -> Header | None:
    uids = {
        column: header_text(ds, keyword)
        for column, keyword in (
            ("study_uid", "StudyInstanceUID"), ("series_uid", "SeriesInstanceUID"),
            ("sop_uid", "SOPInstanceUID"), ("sop_class", "SOPClassUID"),
        )
    }  # fmt: skip
    if not all(UID.fullmatch(value) for value in uids.values()):
        return None
    ds.decode()
    kept = Dataset()
    for keyword in (*STUDY, *SERIES, *INSTANCE):
        if keyword in ds:
            kept.add(ds[keyword])
    texts = {
        column: header_text(ds, keyword)[:length]
        for column, keyword, length in (
            ("modality", "Modality", 16), ("patient_id", "PatientID", 64),
            ("accession", "AccessionNumber", 64), ("study_date", "StudyDate", 8),
            ("study_time", "StudyTime", 16), ("study_id", "StudyID", 64),
        )
    }  # fmt: skip
    name = header_text(ds, "PatientName").upper()[:256]
    identity = {keyword: header_text(ds, keyword) for keyword in _IDENTITY}
    return Header(
        {**uids, **texts, "patient_name": name},
        kept.to_json_dict(suppress_invalid_tags=True),
        identity,
    )


def is_registered(connection: Connection, sha256: str) -> bool:
    """Whether the header of a file is stored."""
    found = select(t.instance.c.id).where(t.instance.c.sha256 == sha256)
    return connection.scalar(found) is not None


def register(connection: Connection, sha256: str, header: Header) -> None:
    """Store the header of a file from table ``blob``, unless it is already stored."""
    if not is_registered(connection, sha256):
        connection.execute(
            insert(t.instance).values(sha256=sha256, header=header.json, **header.columns)
        )
