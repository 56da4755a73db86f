"""FracAtlas with this project's ``labels.csv`` next to ``images/``, or as distributed.

The optional ``boxes.csv`` next to ``labels.csv`` holds the corners of the fractures as fractions of
width and height.

Abedeen et al., FracAtlas, Scientific Data 10:521 (2023), doi 10.1038/s41597-023-02432-4.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import IndexFaultsError, InputMissingError

from ...samples import Box, Sample
from . import fracatlas_authors
from .columns import read_csv, rows_of
from .fracatlas_boxes import within
from .fracatlas_regions import REGIONS_IN_VIEW
from .pictures import Look, Watch, each, look_at, refuse, unwatched

DESCRIPTION = f"labels.csv next to images/; or, as distributed, {fracatlas_authors.DESCRIPTION}"
COLUMNS = ("image_id", "region", "fractured", "hardware", "group", "truncated", "label_conflict")


def is_fracatlas(source: Path) -> bool:
    """Whether this is FracAtlas in either form."""
    labels = source / "labels.csv"
    if labels.is_file() and (source / "images").is_dir():
        return set(COLUMNS[:2]) <= set(read_csv(labels).columns)
    return fracatlas_authors.is_distributed(source)


def read_fracatlas(source: Path, watch: Watch = unwatched) -> list[Sample]:
    """Read the rows of a FracAtlas folder; truncated and contradictory ones are excluded.

    Every picture is decoded once, so that a broken file is found before training.

    Raises:
        InputMissingError: The folder has neither ``labels.csv`` nor the authors' layout.
        IndexFaultsError: There are missing columns or pictures, unknown regions, or unreadable
            files that are not marked as truncated.
    """
    labels = source / "labels.csv"
    if not labels.is_file() and fracatlas_authors.is_distributed(source):
        return fracatlas_authors.read_distributed(source, watch)
    if not labels.is_file():
        raise InputMissingError(f"{source}: not a FracAtlas folder, expected {DESCRIPTION}")
    table = read_csv(labels)
    missing = [f"labels.csv: no column {name!r}" for name in COLUMNS if name not in table.columns]
    if missing:
        raise IndexFaultsError(str(source), missing)
    faults: list[str] = []
    boxes = _read_boxes(source / "boxes.csv", faults)
    rows = []
    for line, row in rows_of(table):
        row_faults = list(_row_faults(row))
        faults += [f"labels.csv line {line} ({row['image_id']}): {fault}" for fault in row_faults]
        rows += [] if row_faults else [row]
    looks = each([source / "images" / row["image_id"] for row in rows], look_at, watch)
    faults += [
        look.fault
        for row, look in zip(rows, looks, strict=True)
        if look.fault and row["truncated"] == "0"
    ]
    refuse(source, faults)
    return [
        _sample(source / "images" / row["image_id"], row, look, boxes.get(row["image_id"], ()))
        for row, look in zip(rows, looks, strict=True)
    ]


def _row_faults(row: dict[str, str]) -> Iterator[str]:
    if row["region"] not in REGIONS_IN_VIEW:
        yield f"region is {row['region']!r}, expected one of {', '.join(REGIONS_IN_VIEW)}"
    for name in ("fractured", "hardware", "truncated", "label_conflict"):
        if row[name] not in ("0", "1"):
            yield f"{name} is {row[name]!r}, expected 0 or 1"
    if not row["group"]:
        yield "group is empty"


def _read_boxes(file: Path, faults: list[str]) -> dict[str, tuple[Box, ...]]:
    """Read the boxes of each picture by its name; empty without the file."""
    boxes: dict[str, tuple[Box, ...]] = {}
    if not file.is_file():
        return boxes
    table = read_csv(file)
    required = ("image_id", "x0", "y0", "x1", "y1")
    missing = [name for name in required if name not in table.columns]
    faults += [f"boxes.csv: no column {name!r}" for name in missing]
    for line, row in () if missing else rows_of(table):
        try:
            box = within(*(float(row[name]) for name in required[1:]))
        except ValueError as error:
            faults.append(f"boxes.csv line {line} ({row['image_id']}): {error}")
        else:
            boxes[row["image_id"]] = (*boxes.get(row["image_id"], ()), box)
    return boxes


def _sample(path: Path, row: dict[str, str], look: Look, boxes: tuple[Box, ...]) -> Sample:
    flags = [name for name in ("hardware", "truncated", "label_conflict") if row[name] == "1"]
    excluded = row["truncated"] == "1" or row["label_conflict"] == "1"
    return Sample(
        path=path,
        regions=REGIONS_IN_VIEW[row["region"]],
        label=int(row["fractured"]),
        label_kind="fracture",
        group=f"fracatlas/{row['group']}",
        study="",
        split="excluded" if excluded else "train",
        origin=f"fracatlas/{row['region']}",
        flags=";".join(flags),
        sha256=look.sha256,
        boxes=boxes,
    )
