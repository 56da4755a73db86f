"""A tree of DICOM files with a CSV file of labels: patient, study and body part from the headers.

Patient and study stand in the table as the first 16 hex digits of a SHA-256 over their
identifiers. That is a pseudonym, not anonymity: whoever has a list of identifiers can hash it and
find them again. File names are kept as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydicom import dcmread

from pipeline.errors import InputMissingError, UsageError
from pipeline.io.quiet import quiet
from pipeline.io.sniff import Kind, sniff
from pipeline.io.terms import known
from pipeline.studies import pseudonym

from ..index import UNKNOWN, Sample
from .columns import LABEL_COLUMNS, PATH_COLUMNS, choose, read_csv, rows_of
from .pictures import Look, Watch, counted, each, hidden, judged, look_at, refuse, unwatched, walk
from .words import Label, denied, kind_of, label_of, regions_of

logger = logging.getLogger(__name__)

WANTED = "a folder of DICOM files, with --labels FILE.csv"

PLAIN = {
    "path": PATH_COLUMNS,
    "SOPInstanceUID": ("SOPInstanceUID", "sop_uid", "instance_uid"),
    "StudyInstanceUID": ("StudyInstanceUID", "study_uid"),
    "AccessionNumber": ("AccessionNumber", "accession"),
    "PatientID": ("PatientID", "patient"),
    "label": LABEL_COLUMNS,
}
"""What a column of the labels may hold, and names by which it is known; the first of those before
``label`` tells which files a row is about."""
_KEYS = tuple(PLAIN)[:-1]
_TAGS = ("SOPInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID", "BodyPartExamined")
# The value representation CS: other text in its place may be a name, and is not repeated.
_PROBED = 20
_TELLING = 4
"""Length from which an identifier within a file name is hardly there by chance."""


class _Labels(NamedTuple):
    """The labels by what names their files (one of ``_KEYS``), and what tells their kind."""

    key: str
    meant: Mapping[str, Label]
    circles: tuple[set[Label], ...] = ()


def is_dicom(source: Path) -> bool:
    """Whether the first files of a folder, but for CSV files, are all DICOM."""
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
    """Rows of a tree of DICOM files.

    The group is the patient, else the study, else the file itself. A file without a label has
    none; how many is logged. Files that cannot be decoded, and objects that are no projection
    radiographs, are flagged and excluded.

    Args:
        source: The folder.
        labels: CSV file; a row is about all files of its instance, study, accession number or
            patient, or about the one at its path (below ``source`` or beside the CSV file).
        columns: Column by field (the keys of ``PLAIN``); the others are known by plain names.
        label_kind: What words mean that do not say it by themselves; empty for unknown.
        watch: Told of the progress.

    Raises:
        InputMissingError: No such folder, no file in it, or no such CSV file.
        UsageError: The CSV file has no column that names files, or none of labels.
        IndexFaultsError: Words that are no label, contradictory labels, missing pictures.
    """
    if not source.is_dir():
        raise InputMissingError(f"{source}: found no folder, wanted {WANTED}")
    faults: list[str] = []
    known = _Labels("path", {})
    if labels:
        known = _read_labels(source, labels, columns or {}, faults)
        faults += denied(known.meant.values(), label_kind)
        refuse(labels, faults)
    table = labels.resolve() if labels else None
    paths = [path for path in walk(source) if path.resolve() != table]
    looks, headers = zip(*each(paths, _look_at, watch), strict=True) if paths else ((), ())
    rows = [
        _row(source, path, header, known, label_kind)
        for path, header in zip(paths, headers, strict=True)
    ]
    _tell(rows, headers, known)
    return judged(rows, looks, listed=False)


def _kind(file: Path) -> Kind:
    try:
        with file.open("rb") as opened:
            return sniff(opened.read(4096))
    except OSError:
        return Kind.UNKNOWN


def _look_at(path: Path) -> tuple[Look, dict[str, str]]:
    """What decoding gave, and the header values of ``_TAGS``; none of what is not DICOM."""
    look = look_at(path)
    if look.flag in ("unreadable", "not_a_picture") or _kind(path) is not Kind.DICOM:
        return look, {}
    try:
        with quiet():
            ds = dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
            return look, {tag: str(ds.get(tag) or "").strip() for tag in _TAGS}
    # pydicom's words for values of a wrong form. The file is then its own group.
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
        return look, {}


def _row(
    source: Path, path: Path, header: Mapping[str, str], labels: _Labels, stated: str
) -> Sample:
    key = str(path.resolve()) if labels.key == "path" else header.get(labels.key, "")
    label = labels.meant.get(key) if key else None
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
    """The labels; faults name lines, never identifiers."""
    table = read_csv(file)
    present = [str(name) for name in table.columns]
    chosen = choose(file, columns, present, PLAIN)
    key = next((key for key in _KEYS if key in chosen), "")
    if not key or "label" not in chosen:
        raise UsageError(
            f"{file}: no column {'of labels' if key else 'that names files'} is known, "
            f"found {', '.join(present)}",
            f"say which it is: --columns FIELD=COLUMN, FIELD one of {', '.join(PLAIN)}",
        )
    meant: dict[str, Label] = {}
    lines: dict[str, int] = {}
    for line, row in rows_of(table):
        word, name = row[chosen["label"]].strip(), row[chosen[key]].strip()
        label = label_of(word)
        if word and label is None:
            faults.append(
                f"line {line}: the label is no known word, wanted 1 or 0, fractured or not "
                "fractured, abnormal or normal, positive or negative, or nothing"
            )
        if key == "path" and name:
            name = _resolve(name, source, file, line, faults)
        if not label or not name:
            continue
        if meant.setdefault(name, label).value != label.value:
            faults.append(f"line {line}: contradicts line {lines[name]}, the same {key}")
        lines.setdefault(name, line)
    column = label_of(chosen["label"])
    return _Labels(key, meant, (set(meant.values()), {column} if column else set()))


def _resolve(name: str, source: Path, file: Path, line: int, faults: list[str]) -> str:
    """The file that a path of the labels means; a fault when there is none."""
    for folder in (source, file.parent):
        path = folder / name.replace("\\", "/")
        if path.is_file():
            return str(path.resolve())
    faults.append(f"line {line}: no picture {name} below {source} or {file.parent}")
    return ""


def _tell(rows: Sequence[Sample], headers: Sequence[Mapping[str, str]], labels: _Labels) -> None:
    """Log what is left open, without identifiers."""
    unlabelled = sum(row.label is None for row in rows)
    if unlabelled:
        logger.warning("%d of %d files have no label", unlabelled, len(rows))
    if labels.key == "path":
        used = {str(row.path.resolve()) for row in rows}
    else:
        used = {header.get(labels.key, "") for header in headers}
    unused = len(set(labels.meant) - used)
    if unused:
        logger.warning("%d labels are of no file that was found (by %s)", unused, labels.key)
    parts = [header.get("BodyPartExamined", "") for header in headers]
    strange = [
        known("BodyPartExamined", part) or "(no known word)"
        for part in parts
        if regions_of(part) is None
    ]
    if strange:
        logger.warning("regions unknown for the body parts %s", counted(strange))
    telling = sum(
        len(patient := header.get("PatientID", "")) >= _TELLING and patient in row.path.as_posix()
        for row, header in zip(rows, headers, strict=True)
    )
    if telling:
        logger.warning("%d file names hold the patient's identifier, and stay in the table as "
                       "they are", telling)  # fmt: skip
