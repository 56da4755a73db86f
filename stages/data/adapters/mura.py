"""MURA-v1.1: ``train|valid/XR_ELBOW/patient00001/study1_positive/image1.png``.

Its CSV files have no header and may be absent: ``train_image_paths.csv`` lists pictures,
``train_labeled_studies.csv`` studies with their label, both as ``MURA-v1.1/train/…``; the same for
``valid``. Labels say abnormal, which is more than fractured. Folders name parts of the body, which
mean what they mean in every data set: a wrist shows the hand, a forearm leaves elbow and hand open.

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

from ..index import Sample, Split
from ..twins import CONFLICT, flagged
from .pictures import Watch, descend, looked_at, named, refuse, unwatched, walk
from .words import regions_of

logger = logging.getLogger(__name__)

WANTED = "train/ or valid/ with XR_ELBOW/patient00001/study1_positive/image1.png and so on"

PARTS: dict[str, Split] = {"train": "train", "valid": "val"}
_PLACE = re.compile(r"(patient\d+)/(study\d+)_(positive|negative)/[^/]+")


def is_mura(source: Path) -> bool:
    """Whether this is MURA, one of its parts or of their regions, or has it directly inside."""
    return _find(source) is not None


def read_mura(source: Path, watch: Watch = unwatched) -> list[Sample]:
    """Rows of MURA, its own division in ``split``.

    Patient numbers hold across regions: one patient may have pictures of several. A study whose
    folder contradicts ``…_labeled_studies.csv`` is flagged ``label_conflict`` and excluded; a
    broken picture is flagged and excluded too.

    Args:
        source: MURA's folder, the one that it lies in, ``train/`` or ``valid/`` alone, or a region
            alone: ``train/XR_ELBOW/``, or ``XR_ELBOW/`` elsewhere.
        watch: Told of the progress.

    Raises:
        InputMissingError: No MURA there.
        IndexFaultsError: Listed pictures or studies that are missing, pictures outside of any
            study, broken CSV files.
    """
    found = _find(source)
    if found is None:
        raise InputMissingError(f"{source}: found no MURA there, wanted {WANTED}")
    root, places = found
    faults: list[str] = []
    rows: list[Sample] = []
    for place in places:
        rows += _read_place(root, place, faults)
    refuse(source, faults)
    return looked_at(rows, watch)


def _find(source: Path) -> tuple[Path, list[str]] | None:
    """Its root, and the folders below it to read: parts, or one region of a part."""
    whole = source.resolve()
    if whole.name in PARTS and whole.name in _parts(whole.parent):
        return whole.parent, [whole.name]
    if _regions(whole.name) and any(whole.glob("patient*/study*_*")):
        if whole.parent.name in PARTS:
            return whole.parents[1], [f"{whole.parent.name}/{whole.name}"]
        return whole.parent, [whole.name]  # taken out of its part: no division
    root = descend(source, lambda folder: bool(_parts(folder)))
    return (root, _parts(root)) if root else None


def _parts(root: Path) -> list[str]:
    return [
        part
        for part in PARTS
        if any(_regions(path.name) and path.is_dir() for path in (root / part).glob("XR_*"))
    ]


def _regions(folder: str) -> str | None:
    """What pictures in ``XR_…`` show, as in the index; None for a folder of another name."""
    prefix, _, part = folder.partition("_")
    return regions_of(part) if prefix == "XR" and part else None


def _part(folder: str) -> str:
    """``train`` or ``valid``, of a folder below the root; empty for a region outside of both."""
    part = folder.partition("/")[0]
    return part if part in PARTS else ""


def _read_place(root: Path, folder: str, faults: list[str]) -> list[Sample]:
    """Rows of ``train`` or ``valid``, or of a region in it, checked against its CSV files."""
    part = _part(folder)
    found = {path.relative_to(root).as_posix(): path for path in walk(root / folder)}
    listed = [
        place
        for _, place, _ in _lines(root / f"{part}_image_paths.csv", faults)
        if place.startswith(f"{folder}/")
    ]
    lost = [place for place in listed if place not in found]
    faults += [f"{part}_image_paths.csv: no picture {root / place}" for place in lost]
    if listed and len(found) > len(listed) - len(lost):
        extra = sorted(set(found) - set(listed))
        logger.info("%s_image_paths.csv does not list %s", part, named(extra))
    labels = _study_labels(root, folder, faults)
    rows = []
    for place, path in found.items():
        row = _row(part, place, path)
        if row is None:
            faults.append(f"{path}: found outside of any study, wanted {WANTED}")
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
    patient, study, word = match.groups()
    return Sample(
        path=path,
        regions=regions,
        label=int(word == "positive"),
        label_kind="abnormality",
        group=f"mura/{patient}",
        study=f"mura/{patient}/{folder}/{study}",
        split=PARTS.get(part, "train"),
        origin=f"mura/{folder}",
        flags="",
        sha256="",
    )


def _study_labels(root: Path, folder: str, faults: list[str]) -> dict[str, int]:
    """The label of each study by its place; a study that is not there is a fault."""
    file = root / f"{_part(folder)}_labeled_studies.csv"
    labels = {}
    for line, place, rest in _lines(file, faults):
        if not place.startswith(f"{folder}/"):
            continue
        study = place.rstrip("/")
        if rest not in (["0"], ["1"]):
            faults.append(f"{file.name} line {line}: label is {','.join(rest)!r}, wanted 0 or 1")
            continue
        if not (root / study).is_dir():
            faults.append(f"{file.name} line {line}: no study {root / study}")
        labels[study] = int(rest[0])
    return labels


def _lines(file: Path, faults: list[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, place below the root, and other values; nothing when there is no such file."""
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
        # "MURA-v1.1/" in front, or whatever the folder was called when it was written.
        _, slash, place = f"/{values[0]}".partition(f"/{part}/")
        if slash:
            yield number, f"{part}/{place}", values[1:]
        else:
            faults.append(f"{file.name} line {number}: no {part}/ in {values[0]!r}")
