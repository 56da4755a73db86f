"""FracAtlas with region labels and groups: ``images/`` beside ``labels.csv``.

Beside them may lie ``boxes.csv``: corners of the fractures as fractions of width and height.

Abedeen et al., FracAtlas, Scientific Data 10:521 (2023), doi 10.1038/s41597-023-02432-4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.errors import ImageError, IndexFaultsError, InputMissingError
from pipeline.io import decode, read_file

from ..index import NONE, UNKNOWN, Box, Sample

REGIONS_IN_VIEW = {
    "elbow": "elbow",
    "hand": "hand",
    "shoulder": "shoulder",
    "elbow+hand": "elbow;hand",
    # The whole arm with the chest: the hand is often cut off or held by a parent.
    "arm+trunk": "elbow;hand?;shoulder",
    # Parts that touch a joint or not: known to the labeller only as "none of the above".
    "forearm": UNKNOWN,
    "other": UNKNOWN,
    "leg": NONE,
    "hip": NONE,
    "leg+hip": NONE,
}
WANTED = ("image_id", "region", "fractured", "hardware", "group", "truncated", "label_conflict")


def read_fracatlas(folder: Path) -> list[Sample]:
    """Rows of a FracAtlas folder, the truncated and the contradictory ones excluded.

    Every picture is decoded once, so that a broken file is found here and not in a night's
    training.

    Raises:
        InputMissingError: No ``labels.csv`` there.
        IndexFaultsError: Missing columns or pictures, unknown regions, unreadable files.
    """
    labels = folder / "labels.csv"
    if not labels.is_file():
        raise InputMissingError(f"{folder}: no labels.csv, wanted a FracAtlas folder with one")
    table = pd.read_csv(labels, dtype=str, keep_default_na=False)
    missing = [f"labels.csv: no column {name!r}" for name in WANTED if name not in table.columns]
    if missing:
        raise IndexFaultsError(str(folder), missing)
    faults: list[str] = []
    boxes = _read_boxes(folder / "boxes.csv", faults)
    samples = []
    for line, row in enumerate(_rows(table), start=2):
        found = list(_row_faults(row))
        faults += [f"labels.csv line {line} ({row['image_id']}): {fault}" for fault in found]
        if not found:
            path = folder / "images" / row["image_id"]
            samples.append(_sample(path, row, boxes.get(row["image_id"], ()), faults))
    if faults:
        raise IndexFaultsError(str(folder), faults)
    return samples


def read_negatives(folder: Path) -> list[Sample]:
    """Rows of a folder of pictures that show no supported region; each is its own group.

    Raises:
        IndexFaultsError: A file cannot be read as a picture.
    """
    faults: list[str] = []
    samples = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content_fault, digest = _check_picture(path)
        if content_fault:
            faults.append(content_fault)
        group = f"{folder.name}/{path.relative_to(folder).as_posix()}"
        samples.append(Sample(path, NONE, None, "", group, "", "train", folder.name, "", digest))
    if faults:
        raise IndexFaultsError(str(folder), faults)
    return samples


def _rows(table: pd.DataFrame) -> Iterator[dict[str, str]]:
    for row in table.to_dict("records"):
        yield {str(name): str(value) for name, value in row.items()}


def _row_faults(row: dict[str, str]) -> Iterator[str]:
    if row["region"] not in REGIONS_IN_VIEW:
        yield f"region is {row['region']!r}, wanted one of {', '.join(REGIONS_IN_VIEW)}"
    for name in ("fractured", "hardware", "truncated", "label_conflict"):
        if row[name] not in ("0", "1"):
            yield f"{name} is {row[name]!r}, wanted 0 or 1"
    if not row["group"]:
        yield "group is empty"


def _read_boxes(file: Path, faults: list[str]) -> dict[str, tuple[Box, ...]]:
    """The boxes of each picture by its name; none when there is no such file."""
    boxes: dict[str, tuple[Box, ...]] = {}
    if not file.is_file():
        return boxes
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    wanted = ("image_id", "x0", "y0", "x1", "y1")
    missing = [name for name in wanted if name not in table.columns]
    faults += [f"boxes.csv: no column {name!r}" for name in missing]
    for line, row in enumerate([] if missing else _rows(table), start=2):
        try:
            # Drawn by hand: a corner may lie a little outside the picture.
            x0, y0, x1, y1 = (min(max(float(row[name]), 0.0), 1.0) for name in wanted[1:])
        except ValueError:
            x0 = x1 = y0 = y1 = 0.0
        if x0 < x1 and y0 < y1:
            boxes[row["image_id"]] = (*boxes.get(row["image_id"], ()), (x0, y0, x1, y1))
        else:
            faults.append(f"boxes.csv line {line} ({row['image_id']}): no box: {row}")
    return boxes


def _sample(path: Path, row: dict[str, str], boxes: tuple[Box, ...], faults: list[str]) -> Sample:
    flags = [name for name in ("hardware", "truncated", "label_conflict") if row[name] == "1"]
    excluded = row["truncated"] == "1" or row["label_conflict"] == "1"
    content_fault, digest = _check_picture(path)
    if content_fault and row["truncated"] == "0":
        faults.append(content_fault)
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
        sha256=digest,
        boxes=boxes,
    )


def _check_picture(path: Path) -> tuple[str | None, str]:
    """Decode a picture; (what is wrong with it or None, SHA-256 of the file)."""
    try:
        content, digest = read_file(path)
        for _ in decode(content, path, digest):
            pass
    except ImageError as error:
        known = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        return str(error), known
    return None, digest
