"""FracAtlas with region labels and groups: ``images/`` beside ``labels.csv``.

Abedeen et al., FracAtlas, Scientific Data 10:521 (2023), doi 10.1038/s41597-023-02432-4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.errors import ImageError, IndexFaultsError, InputMissingError
from pipeline.io import decode, read_file

from ..index import NONE, UNKNOWN, Sample

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
    samples = []
    for line, row in enumerate(_rows(table), start=2):
        found = list(_row_faults(row))
        faults += [f"labels.csv line {line} ({row['image_id']}): {fault}" for fault in found]
        if not found:
            samples.append(_sample(folder / "images" / row["image_id"], row, faults))
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


def _sample(path: Path, row: dict[str, str], faults: list[str]) -> Sample:
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
