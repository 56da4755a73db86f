"""Any CSV file with a row for each picture, paths relative to its folder; our own index too."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pipeline.domain import REGIONS
from pipeline.errors import InputMissingError, UsageError

from ..index import LABEL_KINDS, NEEDED, UNKNOWN, UNSAID, Box, Sample, Split, read_boxes
from .columns import LABEL_COLUMNS, PATH_COLUMNS, choose, read_csv, rows_of
from .pictures import Watch, counted, looked_at, missing, refuse, unwatched
from .words import Label, denied, kind_of, label_of, regions_of, split_of

logger = logging.getLogger(__name__)

WANTED = "a CSV file with a column for the path of each picture and one for its label"

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
"""Fields of a row, and names by which a column is known to hold one."""


def is_table(source: Path) -> bool:
    """Whether this is a CSV file."""
    return source.is_file() and source.suffix.lower() == ".csv"


def read_listed(
    source: Path,
    columns: Mapping[str, str] | None = None,
    label_kind: str = "",
    watch: Watch = unwatched,
) -> list[Sample]:
    """Rows of a CSV file, its own division in ``split``.

    A label means what its words say (``fractured``), else what ``label_kind`` says, else what the
    words beside it or the column's name say. Empty cells are unknown; without a group, a picture
    is its own; without a split, it is for training. A picture that cannot be decoded is flagged and
    excluded.

    Args:
        source: The file.
        columns: Column by field (the keys of ``PLAIN``); the others are known by plain names.
        label_kind: What words mean that do not say it by themselves; empty for unknown.
        watch: Told of the progress.

    Raises:
        InputMissingError: No such file.
        UsageError: ``columns`` names what is not there, or no column of paths or labels is known.
        IndexFaultsError: Missing pictures, and words that are no label, split, kind or box.
    """
    if not source.is_file():
        raise InputMissingError(f"{source}: found no file, wanted {WANTED}")
    table = read_csv(source)
    chosen = choose(source, columns or {}, [str(name) for name in table.columns], PLAIN)
    if "path" not in chosen:
        raise UsageError(
            f"{source}: no column of paths is known, found {', '.join(map(str, table.columns))}",
            "say which it is: --columns path=COLUMN",
        )
    if "label" not in chosen:
        raise UsageError(
            f"{source}: no column of labels is known, found {', '.join(map(str, table.columns))}",
            "say which it is: --columns label=COLUMN; a table whose pictures have no labels has an "
            "empty column label",
        )
    # What an index without the column knew of; the words of other tables are of today's regions.
    known = UNSAID["known_regions"] if {*NEEDED} <= {*table.columns} else ";".join(REGIONS)
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
    _tell(source, [cell for _, cell in cells], chosen)
    rows = looked_at(rows, watch, listed=True)
    pairs = zip(rows, cells, strict=True)
    changed = [
        f"line {line}: {row.path} has changed since the table was made"
        for row, (line, cell) in pairs
        if row.sha256 and cell.get("sha256", "") not in ("", row.sha256)
    ]
    refuse(source, changed)
    return rows


def _labels(
    words: list[str], chosen: Mapping[str, str], stated: str, faults: list[str]
) -> list[tuple[int | None, str]]:
    """Label and kind of each row."""
    meant = [label_of(word) for word in words]
    for line, (word, label) in enumerate(zip(words, meant, strict=True), start=2):
        if word and label is None:
            faults.append(
                f"line {line}: label is {word!r}, wanted 1 or 0, true or false, yes or no, "
                "positive or negative, fractured or not fractured, abnormal or normal, or nothing"
            )
    known: set[Label] = {label for label in meant if label}
    faults += denied(known, stated)
    column = label_of(chosen.get("label", ""))
    circles = known, {column} if column else set()
    return [(m.value, kind_of(m, circles, stated)) if m else (None, "") for m in meant]


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
            faults.append(f"{where}: label_kind is {kind!r}, wanted fracture or abnormality")
    word = cell.get("split", "")
    split: Split | None = "excluded" if word == "excluded" else split_of(word or "train")
    if split is None:
        faults.append(f"{where}: split is {word!r}, wanted train, val, test, excluded or nothing")
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


def _tell(source: Path, cells: list[dict[str, str]], chosen: Mapping[str, str]) -> None:
    """Log what the table leaves open."""
    strange = [cell["regions"] for cell in cells if regions_of(cell.get("regions", "")) is None]
    if strange:
        logger.warning("%s: regions unknown for the words %s", source, counted(strange))
    alone = sum(not cell.get("group") for cell in cells)
    if alone:
        logger.warning(
            "%s: %d pictures have no group and are their own: the split may not be disjoint by "
            "patient",
            source,
            alone,
        )
    undivided = sum(not cell.get("split") for cell in cells) if "split" in chosen else 0
    if undivided:
        logger.warning("%s: %d pictures have no split and are for training", source, undivided)
