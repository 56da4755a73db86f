"""A CSV file with one row per picture and paths relative to its folder, such as the index."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.domain import REGIONS
from pipeline.errors import InputMissingError, UsageError

from ...samples import LABEL_KINDS, UNKNOWN, Box, Sample, Split
from ..index import DEFAULTS, NEEDED, read_boxes
from .columns import LABEL_COLUMNS, PATH_COLUMNS, choose, read_csv, rows_of
from .label_words import Label, denied, kind_of, label_of, regions_of, split_of
from .pictures import Watch, counted, looked_at, missing, refuse, unwatched

logger = logging.getLogger(__name__)

DESCRIPTION = "a CSV file with a column for the path of each picture and one for its label"

PLAIN = {
    "path": (*PATH_COLUMNS, "image", "image_path", "image_id", "img"),
    "label": LABEL_COLUMNS,
    "label_kind": ("label_kind",),
    "group": ("group", "patient", "patient_id", "subject", "subject_id"),
    "study": ("study", "study_id", "study_instance_uid"),
    "regions": ("regions", "region", "body_part", "body_part_examined", "anatomy"),
    "split": ("split", "set", "subset", "partition"),
    "origin": ("origin", "source", "dataset"),
    "flags": ("flags",),
    "boxes": ("boxes",),
    "sha256": ("sha256",),
    "licence": ("licence", "license"),
    "types": ("types", "fracture_types"),
    "known_regions": ("known_regions",),
}
"""Fields of a row and their usual column names."""


def is_table(source: Path) -> bool:
    """Whether this is a CSV file."""
    return source.is_file() and source.suffix.lower() == ".csv"


def read_listed(
    source: Path,
    columns: Mapping[str, str] | None = None,
    label_kind: str = "",
    watch: Watch = unwatched,
) -> list[Sample]:
    """Read the rows of a CSV file, with the data set's split.

    The kind of a label comes from its word (``fractured``), else from ``label_kind``, else from the
    other words or the column's name. Empty cells are unknown; a picture without a group is its own
    group; without a split, it is for training. Undecodable pictures are flagged and excluded.

    Args:
        source: The file.
        columns: Column by field (the keys of ``PLAIN``); other fields use their usual names.
        label_kind: Kind of labels whose word does not imply one; empty for unknown.
        watch: Shows the progress.

    Raises:
        InputMissingError: The file does not exist.
        UsageError: ``columns`` names a missing column, or no path or label column is known.
        IndexFaultsError: There are missing pictures, or invalid labels, splits, kinds or boxes.
    """
    if not source.is_file():
        raise InputMissingError(f"{source}: file not found, expected {DESCRIPTION}")
    table = read_csv(source)
    chosen = choose(source, columns or {}, [str(name) for name in table.columns], PLAIN)
    if "path" not in chosen:
        raise UsageError(
            f"{source}: no known column holds paths, found {', '.join(map(str, table.columns))}",
            "name it: --columns path=COLUMN",
        )
    if "label" not in chosen:
        raise UsageError(
            f"{source}: no known column holds labels, found {', '.join(map(str, table.columns))}",
            "name it: --columns label=COLUMN; if the pictures have no labels, add an empty column "
            "label",
        )
    # An index without the column knew fewer regions; other tables use the current ones.
    known = DEFAULTS["known_regions"] if {*NEEDED} <= {*table.columns} else ";".join(REGIONS)
    cells = [
        (
            line,
            {"known_regions": known}
            | {field: row[column].strip() for field, column in chosen.items()},
        )
        for line, row in rows_of(table)
    ]
    faults: list[str] = []
    labels = _labels([cell.get("label", "") for _, cell in cells], chosen, label_kind, faults)
    rows = [
        _row(source, cell, label, f"line {line}", faults)
        for (line, cell), label in zip(cells, labels, strict=True)
    ]
    faults += missing(
        (f"line {line}", row.path) for (line, _), row in zip(cells, rows, strict=True)
    )
    refuse(source, faults)
    _log_gaps(source, [cell for _, cell in cells], chosen)
    rows = looked_at(rows, watch, listed=True)
    pairs = zip(rows, cells, strict=True)
    mismatches = [
        f"line {line}: {row.path} has changed since the table was made"
        for row, (line, cell) in pairs
        if row.sha256 and cell.get("sha256", "") not in ("", row.sha256)
    ]
    refuse(source, mismatches)
    return rows


def _labels(
    words: list[str], chosen: Mapping[str, str], stated: str, faults: list[str]
) -> list[tuple[int | None, str]]:
    """Label and kind of each row."""
    labels = [label_of(word) for word in words]
    for line, (word, label) in enumerate(zip(words, labels, strict=True), start=2):
        if word and label is None:
            faults.append(
                f"line {line}: label is {word!r}, expected 1 or 0, true or false, yes or no, "
                "positive or negative, fractured or not fractured, abnormal or normal, or nothing"
            )
    known: set[Label] = {label for label in labels if label}
    faults += denied(known, stated)
    column = label_of(chosen.get("label", ""))
    circles = known, {column} if column else set()
    return [
        (label.value, kind_of(label, circles, stated)) if label else (None, "") for label in labels
    ]


def _row(
    source: Path,
    cell: Mapping[str, str],
    label: tuple[int | None, str],
    where: str,
    faults: list[str],
) -> Sample:
    value, kind = label
    if value is not None and cell.get("label_kind"):
        kind = cell["label_kind"]
        if kind not in LABEL_KINDS:
            faults.append(f"{where}: label_kind is {kind!r}, expected fracture or abnormality")
    word = cell.get("split", "")
    split: Split | None = "excluded" if word == "excluded" else split_of(word or "train")
    if split is None:
        faults.append(f"{where}: split is {word!r}, expected train, val, test, excluded or nothing")
    boxes: tuple[Box, ...] = ()
    try:
        boxes = read_boxes(cell.get("boxes", ""))
    except ValueError as error:
        faults.append(f"{where}: boxes are {cell['boxes']!r}, {error}")
    path = cell["path"].replace("\\", "/")
    if not path:
        faults.append(f"{where}: path is empty")
    return Sample(
        path=source.parent / path,
        regions=regions_of(cell.get("regions", "")) or UNKNOWN,
        label=value,
        label_kind=kind,
        group=cell.get("group", "") or path,
        study=cell.get("study", ""),
        split=split or "train",
        origin=cell.get("origin", "") or source.resolve().parent.name,
        flags=";".join(filter(None, cell.get("flags", "").split(";"))),
        sha256="",
        boxes=boxes,
        licence=cell.get("licence", ""),
        types=";".join(cell.get("types", "").lower().replace(";", " ").split()),
        known_regions=cell["known_regions"],
    )


def _log_gaps(source: Path, cells: list[dict[str, str]], chosen: Mapping[str, str]) -> None:
    """Log what the table does not specify."""
    unknown_words = [
        cell["regions"] for cell in cells if regions_of(cell.get("regions", "")) is None
    ]
    if unknown_words:
        logger.warning("%s: unknown words for regions: %s", source, counted(unknown_words))
    ungrouped = sum(not cell.get("group") for cell in cells)
    if ungrouped:
        logger.warning(
            "%s: %d pictures have no group and form one each: the split may not be disjoint by "
            "patient",
            source,
            ungrouped,
        )
    unassigned = sum(not cell.get("split") for cell in cells) if "split" in chosen else 0
    if unassigned:
        logger.warning(
            "%s: %d pictures have no split and are used for training", source, unassigned
        )
