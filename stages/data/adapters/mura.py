"""MURA-v1.1: ``train|valid/XR_ELBOW/patient00001/study1_positive/image1.png``.

The CSV files have no header and are optional: ``train_image_paths.csv`` lists pictures and
``train_labeled_studies.csv`` studies with their label, both as ``MURA-v1.1/train/…``; the same for
``valid``. Labels mean abnormal, which is more than fractured. Folder names are body parts as in any
data set: a wrist shows the hand; for a forearm, elbow and hand are unknown.

Rajpurkar et al., MURA, arXiv 1712.06957.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputMissingError
from pipeline.spreadsheet import separator_of, text_of

from ...samples import Sample, Split
from ..exact_duplicates import CONFLICT, flagged
from .label_words import regions_of
from .pictures import Watch, descend, looked_at, named, refuse, unwatched, walk

logger = logging.getLogger(__name__)

DESCRIPTION = "train/ or valid/ with XR_ELBOW/patient00001/study1_positive/image1.png and so on"

PARTS: dict[str, Split] = {"train": "train", "valid": "val"}
_PLACE = re.compile(r"(patient\d+)/(study\d+)_(positive|negative)/[^/]+")


def is_mura(source: Path) -> bool:
    """Whether this is MURA, its parent folder, or one of its parts or regions."""
    return _find(source) is not None


def read_mura(source: Path, watch: Watch = unwatched) -> list[Sample]:
    """Read the rows of MURA, with the data set's split.

    Patient numbers are shared between regions: a patient may have pictures of several. Studies
    whose folder contradicts ``…_labeled_studies.csv`` are flagged ``label_conflict`` and excluded;
    broken pictures are flagged and excluded.

    Args:
        source: MURA's folder or its parent, ``train/`` or ``valid/`` alone, or a region alone:
            ``train/XR_ELBOW/``, or ``XR_ELBOW/`` elsewhere.
        watch: Shows the progress.

    Raises:
        InputMissingError: The folder does not contain MURA.
        IndexFaultsError: Listed pictures or studies are missing, pictures are outside a study, or
            CSV files are broken.
    """
    located = _find(source)
    if located is None:
        raise InputMissingError(f"{source}: MURA not found, expected {DESCRIPTION}")
    root, folders = located
    faults: list[str] = []
    rows: list[Sample] = []
    for folder in folders:
        rows += _read_folder(root, folder, faults)
    refuse(source, faults)
    return looked_at(rows, watch)


def _find(source: Path) -> tuple[Path, list[str]] | None:
    """Find the root and the folders to read, relative to it: parts, or one region of a part."""
    whole = source.resolve()
    if whole.name in PARTS and whole.name in _parts(whole.parent):
        return whole.parent, [whole.name]
    if _regions(whole.name) and any(whole.glob("patient*/study*_*")):
        if whole.parent.name in PARTS:
            return whole.parents[1], [f"{whole.parent.name}/{whole.name}"]
        return whole.parent, [whole.name]  # a region outside its part: no split
    root = descend(source, lambda folder: bool(_parts(folder)))
    return (root, _parts(root)) if root else None


def _parts(root: Path) -> list[str]:
    return [
        part
        for part in PARTS
        if any(_regions(path.name) and path.is_dir() for path in (root / part).glob("XR_*"))
    ]


def _regions(folder: str) -> str | None:
    """Regions of the pictures in ``XR_…``, as in the index; None for other folder names."""
    prefix, _, part = folder.partition("_")
    return regions_of(part) if prefix == "XR" and part else None


def _part(folder: str) -> str:
    """``train`` or ``valid``, from a folder relative to the root; else empty."""
    part = folder.partition("/")[0]
    return part if part in PARTS else ""


def _read_folder(root: Path, folder: str, faults: list[str]) -> list[Sample]:
    """Read ``train`` or ``valid``, or a region in it, and check it against the CSV files."""
    part = _part(folder)
    present = {path.relative_to(root).as_posix(): path for path in walk(root / folder)}
    listed = [
        place
        for _, place, _ in _lines(root / f"{part}_image_paths.csv", faults)
        if place.startswith(f"{folder}/")
    ]
    absent = [place for place in listed if place not in present]
    faults += [f"{part}_image_paths.csv: picture {root / place} not found" for place in absent]
    if listed and len(present) > len(listed) - len(absent):
        unlisted = sorted(set(present) - set(listed))
        logger.info("%s_image_paths.csv does not list %s", part, named(unlisted))
    labels = _study_labels(root, folder, faults)
    rows = []
    for place, path in present.items():
        row = _row(part, place, path)
        if row is None:
            faults.append(f"{path}: outside a study folder, expected {DESCRIPTION}")
        elif labels.get(place.rpartition("/")[0], row.label) != row.label:
            rows.append(flagged(row, CONFLICT))
        else:
            rows.append(row)
    conflicts = sum(CONFLICT in row.flags for row in rows)
    if conflicts:
        logger.warning("%d pictures: %s_labeled_studies.csv contradicts the folder",
                       conflicts, part)  # fmt: skip
    return rows


def _row(part: str, place: str, path: Path) -> Sample | None:
    folder, _, rest = place.removeprefix(f"{part}/").partition("/")
    regions, match = _regions(folder), _PLACE.fullmatch(rest)
    if regions is None or not match:
        return None
    patient, study, label = match.groups()
    return Sample(
        path=path,
        regions=regions,
        label=int(label == "positive"),
        label_kind="abnormality",
        group=f"mura/{patient}",
        study=f"mura/{patient}/{folder}/{study}",
        split=PARTS.get(part, "train"),
        origin=f"mura/{folder}",
        flags="",
        sha256="",
    )


def _study_labels(root: Path, folder: str, faults: list[str]) -> dict[str, int]:
    """Read the label of each study by its path; a missing study is a fault."""
    file = root / f"{_part(folder)}_labeled_studies.csv"
    labels = {}
    for line, place, rest in _lines(file, faults):
        if not place.startswith(f"{folder}/"):
            continue
        study = place.rstrip("/")
        if rest not in (["0"], ["1"]):
            faults.append(f"{file.name} line {line}: label is {','.join(rest)!r}, expected 0 or 1")
            continue
        if not (root / study).is_dir():
            faults.append(f"{file.name} line {line}: study {root / study} not found")
        labels[study] = int(rest[0])
    return labels


def _lines(file: Path, faults: list[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, path relative to the root, and other values; nothing without the file."""
    part = file.name.partition("_")[0]
    if not file.is_file():
        return
    try:
        text = text_of(file.read_bytes())
    except ValueError as error:
        faults.append(f"{file.name}: {error}")
        return
    rows = csv.reader(text.splitlines(), delimiter=separator_of(text))
    for number, values in enumerate(rows, start=1):
        if not values:
            continue
        # The prefix is "MURA-v1.1/" or another name of the root folder.
        _, slash, place = f"/{values[0]}".partition(f"/{part}/")
        if slash:
            yield number, f"{part}/{place}", values[1:]
        else:
            faults.append(f"{file.name} line {number}: no {part}/ in {values[0]!r}")
