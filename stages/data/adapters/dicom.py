"""A tree of DICOM files with a CSV file of labels: patient, study and body part from the headers.

The table stores patient and study as the first 16 hex digits of the SHA-256 of their identifiers.
This is pseudonymous, not anonymous: anyone with a list of identifiers can hash it and find the
matches. File names are kept unchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydicom import dcmread

from pipeline.errors import InputMissingError, UsageError
from pipeline.io.dicom_terms import known
from pipeline.io.sniff import Kind, sniff
from pipeline.io.warning_filter import quiet
from pipeline.studies import pseudonym

from ...samples import UNKNOWN, Sample
from .columns import LABEL_COLUMNS, PATH_COLUMNS, choose, read_csv, rows_of
from .label_words import Label, denied, kind_of, label_of, regions_of
from .pictures import Look, Watch, counted, each, hidden, judged, look_at, refuse, unwatched, walk

logger = logging.getLogger(__name__)

DESCRIPTION = "a folder of DICOM files, with --labels FILE.csv"

PLAIN = {
    "path": PATH_COLUMNS,
    "SOPInstanceUID": ("SOPInstanceUID", "sop_uid", "instance_uid"),
    "StudyInstanceUID": ("StudyInstanceUID", "study_uid"),
    "AccessionNumber": ("AccessionNumber", "accession"),
    "PatientID": ("PatientID", "patient"),
    "label": LABEL_COLUMNS,
}
"""Fields of the label table with their usual column names. The first field before ``label`` that
has a column selects the files of a row."""
_KEYS = tuple(PLAIN)[:-1]
_TAGS = ("SOPInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID", "BodyPartExamined")

_PROBED = 20
_MIN_IDENTIFIER = 4
"""Minimum length of an identifier: a shorter one may occur in a file name by chance."""


class _Labels(NamedTuple):
    """Labels by the value of ``key`` (one of ``_KEYS``), and the labels that determine the kind."""

    key: str
    by_key: Mapping[str, Label]
    circles: tuple[set[Label], ...] = ()


def is_dicom(source: Path) -> bool:
    """Whether the first files of a folder are all DICOM, not counting CSV files."""
    if not source.is_dir():
        return False
    files = (p for p in source.rglob("*") if p.is_file() and not hidden(p.name))
    kinds = {_kind(p) for p in islice(files, _PROBED) if p.suffix.lower() != ".csv"}
    return kinds == {Kind.DICOM}


def read_studies(
    source: Path,
    labels: Path | None = None,
    columns: Mapping[str, str] | None = None,
    label_kind: str = "",
    watch: Watch = unwatched,
) -> list[Sample]:
    """Read the rows of a tree of DICOM files.

    The group is the patient, else the study, else the file itself. Files without a label stay
    unlabelled; their number is logged. Files that cannot be decoded, and objects other than
    projection radiographs, are flagged and excluded.

    Args:
        source: The folder.
        labels: CSV file; a row applies to all files of its instance, study, accession number or
            patient, or to the file at its path (relative to ``source`` or to the CSV file).
        columns: Column by field (the keys of ``PLAIN``); other fields use their usual names.
        label_kind: Kind of labels whose word does not imply one; empty for unknown.
        watch: Shows the progress.

    Raises:
        InputMissingError: The folder or the CSV file does not exist, or the folder is empty.
        UsageError: The CSV file has no column that identifies files, or no label column.
        IndexFaultsError: There are invalid or contradictory labels, or missing pictures.
    """
    if not source.is_dir():
        raise InputMissingError(f"{source}: folder not found, expected {DESCRIPTION}")
    faults: list[str] = []
    known = _Labels("path", {})
    if labels:
        known = _read_labels(source, labels, columns or {}, faults)
        faults += denied(known.by_key.values(), label_kind)
        refuse(labels, faults)
    table = labels.resolve() if labels else None
    paths = [path for path in walk(source) if path.resolve() != table]
    looks, headers = zip(*each(paths, _look_at, watch), strict=True) if paths else ((), ())
    rows = [
        _row(source, path, header, known, label_kind)
        for path, header in zip(paths, headers, strict=True)
    ]
    _log_gaps(rows, headers, known)
    return judged(rows, looks, listed=False)


def _kind(file: Path) -> Kind:
    try:
        with file.open("rb") as opened:
            return sniff(opened.read(4096))
    except OSError:
        return Kind.UNKNOWN


def _look_at(path: Path) -> tuple[Look, dict[str, str]]:
    """The result of decoding, and the header values of ``_TAGS`` (none if it is not DICOM)."""
    look = look_at(path)
    if look.flag in ("unreadable", "not_a_picture") or _kind(path) is not Kind.DICOM:
        return look, {}
    try:
        with quiet():
            ds = dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
            return look, {tag: str(ds.get(tag) or "").strip() for tag in _TAGS}
    # pydicom raises these for malformed values. The file then is its own group.
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
        return look, {}


def _row(
    source: Path, path: Path, header: Mapping[str, str], labels: _Labels, stated: str
) -> Sample:
    key = str(path.resolve()) if labels.key == "path" else header.get(labels.key, "")
    label = labels.by_key.get(key) if key else None
    patient = header.get("PatientID") or header.get("StudyInstanceUID")
    study = header.get("StudyInstanceUID")
    name = source.resolve().name
    return Sample(
        path=path,
        regions=regions_of(header.get("BodyPartExamined", "")) or UNKNOWN,
        label=label.value if label else None,
        label_kind=kind_of(label, labels.circles, stated) if label else "",
        group=pseudonym(patient) if patient else f"{name}/{path.relative_to(source).as_posix()}",
        study=pseudonym(study) if study else "",
        split="train",
        origin=name,
        flags="",
        sha256="",
    )


def _read_labels(
    source: Path, file: Path, columns: Mapping[str, str], faults: list[str]
) -> _Labels:
    """Read the labels; faults name lines, never identifiers."""
    table = read_csv(file)
    present = [str(name) for name in table.columns]
    chosen = choose(file, columns, present, PLAIN)
    key = next((key for key in _KEYS if key in chosen), "")
    if not key or "label" not in chosen:
        raise UsageError(
            f"{file}: no known column {'holds labels' if key else 'identifies files'}, "
            f"found {', '.join(present)}",
            f"name it: --columns FIELD=COLUMN, FIELD one of {', '.join(PLAIN)}",
        )
    by_key: dict[str, Label] = {}
    lines: dict[str, int] = {}
    for line, row in rows_of(table):
        word, name = row[chosen["label"]].strip(), row[chosen[key]].strip()
        label = label_of(word)
        if word and label is None:
            faults.append(
                f"line {line}: unknown label, expected 1 or 0, fractured or not "
                "fractured, abnormal or normal, positive or negative, or nothing"
            )
        if key == "path" and name:
            name = _resolve(name, source, file, line, faults)
        if not label or not name:
            continue
        if by_key.setdefault(name, label).value != label.value:
            faults.append(f"line {line}: contradicts line {lines[name]}, the same {key}")
        lines.setdefault(name, line)
    column = label_of(chosen["label"])
    return _Labels(key, by_key, (set(by_key.values()), {column} if column else set()))


def _resolve(name: str, source: Path, file: Path, line: int, faults: list[str]) -> str:
    """Resolve a path of the label table; a fault if there is no such file."""
    for folder in (source, file.parent):
        path = folder / name.replace("\\", "/")
        if path.is_file():
            return str(path.resolve())
    faults.append(f"line {line}: picture {name} not found in {source} or {file.parent}")
    return ""


def _log_gaps(
    rows: Sequence[Sample], headers: Sequence[Mapping[str, str]], labels: _Labels
) -> None:
    """Log missing and unused values, without identifiers."""
    unlabelled = sum(row.label is None for row in rows)
    if unlabelled:
        logger.warning("%d of %d files have no label", unlabelled, len(rows))
    if labels.key == "path":
        used = {str(row.path.resolve()) for row in rows}
    else:
        used = {header.get(labels.key, "") for header in headers}
    unused = len(set(labels.by_key) - used)
    if unused:
        logger.warning("%d labels match no file (by %s)", unused, labels.key)
    parts = [header.get("BodyPartExamined", "") for header in headers]
    unknown_parts = [
        known("BodyPartExamined", part) or "(unknown word)"
        for part in parts
        if regions_of(part) is None
    ]
    if unknown_parts:
        logger.warning("unknown body parts: %s; their regions are unknown", counted(unknown_parts))
    identifying = sum(
        len(patient := header.get("PatientID", "")) >= _MIN_IDENTIFIER
        and patient in row.path.as_posix()
        for row, header in zip(rows, headers, strict=True)
    )
    if identifying:
        logger.warning("%d file names contain the patient's identifier; the table stores them "
                       "unchanged", identifying)  # fmt: skip
