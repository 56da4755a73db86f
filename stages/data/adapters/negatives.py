"""A folder of pictures without a supported region: chests, spines, photographs.

The optional ``SOURCES.csv`` gives the source of each file (columns ``file``, ``original_path``,
``licence``, and optionally ``sha256``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.errors import IndexFaultsError

from ...samples import NONE, Sample
from .columns import read_csv, rows_of
from .pictures import Watch, looked_at, missing, named, refuse, unwatched, walk

logger = logging.getLogger(__name__)

SOURCES = "SOURCES.csv"
_NEEDED = ("file", "original_path", "licence")

# ChestX-ray14 of the NIH: patient number, then picture number.
_CHEST_XRAY14 = re.compile(r"(\d{8})_\d{3}")
_COUNTERS = re.compile(r"(?:[\s_.-]*\(?\d+\)?)+$")
_PART = re.compile(r"[-_][a-z]$")
_SEPARATOR = re.compile(r"[-_ ]")


def read_negatives(folder: Path, watch: Watch = unwatched) -> list[Sample]:
    """Read rows without a label; broken pictures are flagged and excluded.

    Without ``SOURCES.csv`` each picture is its own group. With it, rows have the licence, the
    subfolder in their origin, and as group the most conservative substitute for a patient from the
    original name: the patient in ChestX-ray14, else all files whose names differ only in trailing
    counters (``vhm.403``, ``scan (12)``) or suffixes (``elephants``, ``elephants_bw``), else, for a
    plain number, the original folder. Unlisted pictures have no licence and are their own group.

    Raises:
        InputMissingError: The folder does not exist or is empty.
        IndexFaultsError: ``SOURCES.csv`` is not such a table, or lists a file that is missing, has
            changed or is listed twice.
    """
    table = folder / SOURCES
    name = folder.resolve().name
    if not table.is_file():
        rows = [_row(path, folder, name, name) for path in walk(folder)]
        return looked_at(rows, watch)
    sources = _read_sources(table)
    families = _families({file: source["original_path"] for file, source in sources.items()})
    paths = {path.relative_to(folder).as_posix(): path for path in walk(folder) if path != table}
    refuse(table, missing((SOURCES, folder / file) for file in sources.keys() - paths.keys()))
    rows = []
    for file, path in paths.items():
        origin = "/".join((name, *PurePosixPath(file).parts[:-1][:1]))
        row = _row(path, folder, name, origin)
        if file in sources:
            group = families[file]
            row = replace(
                row,
                licence=sources[file]["licence"].strip(),
                group=f"{origin}/{group}" if group else row.group,
            )
        rows.append(row)
    rows = looked_at(rows, watch)
    known = {folder / file: source.get("sha256", "") for file, source in sources.items()}
    refuse(
        table,
        [
            f"{row.path}: its SHA-256 is {row.sha256}, expected {known[row.path]} (from the table)"
            for row in rows
            if row.sha256 and known.get(row.path, "") not in ("", row.sha256)
        ],
    )
    if unlisted := [row.path.name for row in rows if row.path not in known]:
        logger.warning("%s: %d pictures are not listed: %s", table, len(unlisted), named(unlisted))
    return rows


def _row(path: Path, folder: Path, name: str, origin: str) -> Sample:
    group = f"{name}/{path.relative_to(folder).as_posix()}"
    return Sample(path, NONE, None, "", group, "", "train", origin, "", "")


def _read_sources(table: Path) -> dict[str, dict[str, str]]:
    """Read the rows of the table by file.

    Raises:
        IndexFaultsError: A column is missing, or a file is listed twice.
    """
    content = read_csv(table)
    if missing_columns := [column for column in _NEEDED if column not in content.columns]:
        raise IndexFaultsError(str(table), [f"no column {column!r}" for column in missing_columns])
    sources: dict[str, dict[str, str]] = {}
    faults = []
    for line, row in rows_of(content):
        file = PurePosixPath(row["file"].replace("\\", "/")).as_posix()
        if file in sources:
            faults.append(f"line {line}: {file} is listed twice")
        sources[file] = row
    refuse(table, faults)
    return sources


def _families(originals: Mapping[str, str]) -> dict[str, str]:
    """The substitute for the patient of each file; empty without an original name.

    Args:
        originals: The original path by file.
    """
    stems = {file: _family(path) for file, path in originals.items()}
    known = set(stems.values())
    return {file: _root(stem, known) for file, stem in stems.items()}


def _family(original: str) -> str:
    path = PurePosixPath(original.strip().replace("\\", "/"))
    if path.name in ("", "-"):
        return ""
    if patient := _CHEST_XRAY14.fullmatch(path.stem):
        return patient[1]
    return _PART.sub("", _COUNTERS.sub("", path.stem)) or path.parent.as_posix()


def _root(stem: str, known: Collection[str]) -> str:
    """The shortest known family that, with a separator, is a prefix of the stem; else the stem."""
    ends = (match.start() for match in _SEPARATOR.finditer(stem))
    return next((stem[:end] for end in ends if stem[:end] in known and end), stem)
