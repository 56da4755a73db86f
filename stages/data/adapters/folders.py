"""Class folders at any depth, with or without split folders: ``train/hand/not fractured/1.png``.

The multi-region data set has this layout (``train|val|test / fractured|not fractured``), as have
most exports for classification.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputMissingError

from ...samples import UNKNOWN, Sample, Split
from .label_words import Label, denied, kind_of, label_of, regions_of, split_of
from .pictures import Watch, hidden, looked_at, named, refuse, unwatched, walk

logger = logging.getLogger(__name__)

DESCRIPTION = "folders of two classes, such as fractured/ and not fractured/, at any depth"

_PATIENT = re.compile(r"(patient|subject|case|person)[ _-]?\d+", re.IGNORECASE)
_AUGMENTED = re.compile(
    r"""
    (?: [-_ ]
        (?: rot (?: ated? )? | (?: h | v )? flip (?: ped )? | mirror (?: ed )? | aug (?: mented )? )
        [-_ ]? \d*                      # 10-rotated1-rotated3, a_flip, b_rot90, c_aug_2
        (?: [ ]? \(\d+\) )?             # downloaded twice: 10-rotated2 (1)
      | \.rf\. [0-9a-f]+                # Roboflow: d_jpg.rf.0a1b2c
      | [ ]-[ ]Copy (?: [ ]\(\d+\) )?   # Windows: e - Copy (2)
      | [-_ ]copy \d*
    ) $
    """,
    re.IGNORECASE | re.VERBOSE,
)  # fmt: skip
_NUMBERED = re.compile(r"(.+?) ?\(\d+\)")
_DIGITS = {"0", "1"}


@dataclass(frozen=True, slots=True)
class _Place:
    """Information from the folders of one file.

    Attributes:
        path: The file.
        label: Of its class folder; None without one.
        parent: Folder that contains the class folder, as parts relative to the root.
        split: Of its split folder; None without one.
        regions: Of a folder that names a region.
        patient: Folder that names a patient; may be empty.
        between: Folders other than class, split and patient.
    """

    path: Path
    label: Label | None
    parent: tuple[str, ...]
    split: Split | None
    regions: str
    patient: str
    between: tuple[str, ...]


def is_folders(source: Path) -> bool:
    """Whether two sibling folders have the names of the two classes."""
    for _, names, _ in os.walk(source) if source.is_dir() else ():
        names[:] = sorted(name for name in names if not hidden(name))
        words = [name for name in names if name not in _DIGITS]
        values = {label.value for label in map(label_of, words) if label}
        if values == {0, 1} or set(names) == _DIGITS:
            return True
    return False


def read_folders(source: Path, label_kind: str = "", watch: Watch = unwatched) -> list[Sample]:
    """Read the rows of a tree of class folders, with the data set's split.

    A file outside split folders is for training; outside class folders, its label is unknown. Words
    such as ``normal`` or ``positive`` have the kind of the sibling class folder. Folders named 0
    and 1 are classes only if they have no other siblings and no parent or child has a class name.

    The group is a folder such as ``patient12``, else the class and the file name without the
    suffixes of augmentation (``-rotated1-rotated2``, ``_flip``, `` - Copy``, Roboflow's ``.rf.…``;
    ``(2)`` only if the file without it exists, because some data sets number all files like this).
    This is a substitute: the split may not be disjoint by patient.

    Args:
        source: The folder.
        label_kind: Kind of labels whose word does not imply one; empty for unknown.
        watch: Shows the progress.

    Raises:
        InputMissingError: The folder does not exist or is empty.
        IndexFaultsError: Nested class folders contradict each other, or ``label_kind``.
    """
    if not source.is_dir():
        raise InputMissingError(f"{source}: folder not found, expected {DESCRIPTION}")
    paths = walk(source)
    below = [path.relative_to(source).parts[:-1] for path in paths]
    siblings: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for parts in below:
        for i, name in enumerate(parts):
            siblings[parts[:i]].add(name)
    faults: list[str] = []
    places = [
        _place(path, parts, siblings, faults) for path, parts in zip(paths, below, strict=True)
    ]
    faults += denied((place.label for place in places if place.label), label_kind)
    refuse(source, faults)
    rows = looked_at(_rows(source.resolve().name, places, label_kind), watch)
    _log_gaps({place.path: place for place in places}, rows)
    return rows


def _place(
    path: Path,
    parts: tuple[str, ...],
    siblings: Mapping[tuple[str, ...], set[str]],
    faults: list[str],
) -> _Place:
    classes = {
        i: label
        for i, label in enumerate(map(label_of, parts))
        if label and (parts[i] not in _DIGITS or siblings[parts[:i]] <= _DIGITS)
    }
    worded = {i: label for i, label in classes.items() if parts[i] not in _DIGITS}
    chosen = worded or classes
    if len({label.value for label in chosen.values()}) > 1:
        words = " and ".join(repr(parts[i]) for i in chosen)
        faults.append(f"{path}: its folders {words} contradict each other")
    deepest = max(chosen, default=None)
    splits = {i: split for i, split in enumerate(map(split_of, parts)) if split}
    patients = [name for name in parts if _PATIENT.fullmatch(name)]
    dropped = {*chosen, *list(splits)[:1]}
    between = [name for i, name in enumerate(parts) if i not in dropped and name not in patients]
    regions = {region for region in map(regions_of, between) if region}
    # A definite word (elbow) takes precedence over an ambiguous one (arm).
    regions = {region for region in regions if "?" not in region} or regions
    return _Place(
        path=path,
        label=None if deepest is None else chosen[deepest],
        parent=() if deepest is None else parts[:deepest],
        split=next(iter(splits.values()), None),
        regions=regions.pop() if len(regions) == 1 else UNKNOWN,
        patient="/".join(patients),
        between=tuple(between),
    )


def _rows(root: str, places: Sequence[_Place], stated: str) -> list[Sample]:
    circles: dict[tuple[str, ...], set[Label]] = defaultdict(set)
    for place in places:
        if place.label:
            circles[place.parent].add(place.label)
    all_labels = set().union(*circles.values())
    rows = []
    for place, group in zip(places, _groups(root, places), strict=True):
        label = place.label
        near = circles[place.parent], all_labels
        rows.append(
            Sample(
                path=place.path,
                regions=place.regions,
                label=label.value if label else None,
                label_kind=kind_of(label, near, stated) if label else "",
                group=group,
                study="",
                split=place.split or "train",
                origin="/".join((root, *place.between)),
                flags="",
                sha256="",
            )
        )
    return rows


def _groups(root: str, places: Sequence[_Place]) -> list[str]:
    """The patient of each file, or its class and the name that it had before augmentation."""
    keys = []
    for place in places:
        value = place.label.value if place.label else "unlabelled"
        keys.append(("/".join((root, *place.between, str(value))), _original(place.path.stem)))
    known = set(keys)
    groups = []
    for place, (front, stem) in zip(places, keys, strict=True):
        copy = _NUMBERED.fullmatch(stem)
        if copy and (front, copy[1]) in known:
            stem = copy[1]
        groups.append(f"{root}/{place.patient}" if place.patient else f"{front}/{stem}")
    return groups


def _log_gaps(places: Mapping[Path, _Place], rows: Sequence[Sample]) -> None:
    """Log what the folders do not specify."""
    used = [places[row.path] for row in rows]
    if unlabelled := [place.path.name for place in used if place.label is None]:
        logger.warning(
            "%d pictures are outside the class folders: %s", len(unlabelled), named(unlabelled)
        )
    unassigned = [place.path.name for place in used if place.split is None]
    if 0 < len(unassigned) < len(used):
        logger.warning(
            "%d pictures are outside the split folders and are used for training: %s",
            len(unassigned),
            named(unassigned),
        )
    if without_patient := sum(not place.patient for place in used):
        logger.warning(
            "%d pictures have no patient and are grouped by file name: the split may not be "
            "disjoint by patient",
            without_patient,
        )


def _original(stem: str) -> str:
    """The name without suffixes of augmentation; never empty."""
    while (shorter := _AUGMENTED.sub("", stem)) not in (stem, ""):
        stem = shorter
    return stem
