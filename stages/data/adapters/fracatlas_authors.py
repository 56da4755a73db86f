"""FracAtlas as its authors distribute it: ``images/Fractured/``, ``images/Non_fractured/``.

The same folder contains ``dataset.csv`` (one row per picture: body parts, hardware, fractured) and
``Annotations/`` (boxes in several formats).

Abedeen et al., FracAtlas, Scientific Data 10:521 (2023), doi 10.1038/s41597-023-02432-4, CC BY 4.0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import InputMissingError

from ...samples import UNKNOWN, Box, Sample
from ..exact_duplicates import CONFLICT, flagged
from .columns import read_csv, rows_of
from .fracatlas_boxes import read_annotations
from .fracatlas_regions import REGIONS_IN_VIEW, known_pictures
from .label_words import regions_of
from .pictures import Watch, descend, looked_at, named, refuse, unwatched, walk

logger = logging.getLogger(__name__)

DESCRIPTION = "dataset.csv next to images/Fractured/ and images/Non_fractured/"

CLASSES = {"Fractured": 1, "Non_fractured": 0}
PARTS = ("hand", "leg", "hip", "shoulder")
COLUMNS = ("image_id", *PARTS, "hardware", "fractured")


def is_distributed(source: Path) -> bool:
    """Whether the folder, or a direct subfolder, is FracAtlas as its authors distribute it."""
    return descend(source, _fits) is not None


def _fits(folder: Path) -> bool:
    classes = any((folder / "images" / name).is_dir() for name in CLASSES)
    return classes and (folder / "dataset.csv").is_file()


def read_distributed(source: Path, watch: Watch = unwatched) -> list[Sample]:
    """Read the rows of FracAtlas, with regions and groups from ``fracatlas_regions.csv`` if listed.

    Any other picture is its own group and has the regions that ``dataset.csv`` gives with
    certainty: its "hand" is the whole upper limb, so the regions stay unknown, and a picture of the
    whole arm also shows the shoulder, marked or not. Broken pictures, and pictures whose folder
    contradicts the table, are flagged and excluded.

    Raises:
        InputMissingError: The folder does not have this layout.
        IndexFaultsError: There are missing columns or pictures, invalid values, or broken
            annotations.
    """
    folder = descend(source, _fits)
    if folder is None:
        raise InputMissingError(f"{source}: FracAtlas not found, expected {DESCRIPTION}")
    faults: list[str] = []
    listed = _listed(folder / "dataset.csv", faults)
    boxes = read_annotations(folder / "Annotations", faults)
    class_of = {path: CLASSES.get(path.parent.name) for path in walk(folder / "images")}
    faults += [
        f"{path}: outside the class folders, expected {DESCRIPTION}"
        for path, label in class_of.items()
        if label is None
    ]
    names = {path.name for path in class_of}
    faults += [
        f"dataset.csv line {line}: {name} is in none of images/{', images/'.join(CLASSES)}"
        for name, (line, _) in listed.items()
        if name not in names
    ]
    refuse(folder, faults)
    unlisted = sorted(names - set(listed))
    if unlisted:
        logger.warning("dataset.csv does not list %d pictures: %s", len(unlisted), named(unlisted))
    rows = [
        _row(path, label, listed.get(path.name, (0, {}))[1], boxes.get(path.stem, ()))
        for path, label in class_of.items()
        if label is not None
    ]
    conflicts = [row.path.name for row in rows if CONFLICT in row.flags]
    if conflicts:
        logger.warning("%d labels are contradicted: %s", len(conflicts), named(conflicts))
    return looked_at(rows, watch)


def _listed(file: Path, faults: list[str]) -> dict[str, tuple[int, dict[str, str]]]:
    """Read the line number and values of each picture by its name."""
    table = read_csv(file)
    missing = [f"dataset.csv: no column {name!r}" for name in COLUMNS if name not in table.columns]
    faults += missing
    listed: dict[str, tuple[int, dict[str, str]]] = {}
    for line, row in () if missing else rows_of(table):
        faults += [f"dataset.csv line {line}: {fault}" for fault in _row_faults(row, listed)]
        listed[row["image_id"]] = (line, row)
    return listed


def _row_faults(row: Mapping[str, str], before: Mapping[str, tuple[int, object]]) -> Iterator[str]:
    for name in COLUMNS[1:]:
        if row[name] not in ("0", "1"):
            yield f"{name} is {row[name]!r}, expected 0 or 1"
    if row["image_id"] in before:
        yield f"{row['image_id']} is already in line {before[row['image_id']][0]}"


def _row(path: Path, label: int, listed: Mapping[str, str], boxes: tuple[Box, ...]) -> Sample:
    known = known_pictures().get(path.name)
    parts = "+".join(part for part in PARTS if listed.get(part) == "1")
    regions = regions_of(parts, "fracatlas as distributed") or UNKNOWN
    row = Sample(
        path=path,
        regions=REGIONS_IN_VIEW[known.region] if known else regions,
        label=label,
        label_kind="fracture",
        group=f"fracatlas/{known.group if known else path.name}",
        study="",
        split="train",
        origin=f"fracatlas/{known.region if known else 'authors:' + (parts or 'none')}",
        flags="hardware" if listed.get("hardware") == "1" else "",
        sha256="",
        boxes=boxes,
    )
    if known and known.truncated:
        row = flagged(row, "truncated")
    if (known and known.label_conflict) or listed.get("fractured", str(label)) != str(label):
        row = flagged(row, CONFLICT)
    return row
