"""Class folders in any depth, with or without a division: ``train/hand/not fractured/1.png``.

The multi-region set has this layout (``train|val|test / fractured|not fractured``), and so has
nearly every export for classification.
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

from ..index import UNKNOWN, Sample, Split
from .pictures import Watch, hidden, looked_at, named, refuse, unwatched, walk
from .words import Label, denied, kind_of, label_of, regions_of, split_of

logger = logging.getLogger(__name__)

WANTED = "folders of two classes, such as fractured/ and not fractured/, in any depth"

_PATIENT = re.compile(r"(patient|subject|case|person)[ _-]?\d+", re.IGNORECASE)
_AUGMENTED = re.compile(
    r"""
    (?: [-_ ]
        (?: rot (?: ated? )? | (?: h | v )? flip (?: ped )? | mirror (?: ed )? | aug (?: mented )? )
        [-_ ]? \d*                      # 10-rotated1-rotated3, a_flip, b_rot90, c_aug_2
        (?: [ ]? \(\d+\) )?             # and downloaded twice: 10-rotated2 (1)
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
    """What the folders of one file say.

    Attributes:
        path: The file.
        label: Of its class folder; None when it is in none.
        parent: The folder that the class folder lies in, as parts below the root.
        split: Of its split folder; None when it is in none.
        regions: Of a folder that names a region.
        patient: A folder that names a patient; may be empty.
        between: The folders that are neither class, split nor patient.
    """

    path: Path
    label: Label | None
    parent: tuple[str, ...]
    split: Split | None
    regions: str
    patient: str
    between: tuple[str, ...]


def is_folders(source: Path) -> bool:
    """Whether two folders, side by side, bear the names of the two classes."""
    for _, names, _ in os.walk(source) if source.is_dir() else ():
        names[:] = sorted(name for name in names if not hidden(name))
        words = [name for name in names if name not in _DIGITS]
        found = {label.value for label in map(label_of, words) if label}
        if found == {0, 1} or set(names) == _DIGITS:
            return True
    return False


def read_folders(source: Path, label_kind: str = "", watch: Watch = unwatched) -> list[Sample]:
    """Rows of a tree of class folders, its own division in ``split``.

    A file in no split folder is for training; in no class folder, its label is unknown. Words such
    as ``normal`` or ``positive`` mean what the class folder beside them means. Folders named 0 and
    1 are classes only where no other folder is beside them, and no better word above or below.

    The group is a folder such as ``patient12``. Without one it is the class and the name of the
    file, less what augmentation adds to names (``-rotated1-rotated2``, ``_flip``, `` - Copy``,
    Roboflow's ``.rf.…``; ``(2)`` only where the file without it is there too, for whole sets are
    numbered like that). That is a stand-in: the split may not be disjoint by patient.

    Args:
        source: The folder.
        label_kind: What words mean that do not say it by themselves; empty for unknown.
        watch: Told of the progress.

    Raises:
        InputMissingError: No such folder, or no file in it.
        IndexFaultsError: Class folders inside each other that contradict, or ``label_kind``.
    """
    if not source.is_dir():
        raise InputMissingError(f"{source}: found no folder, wanted {WANTED}")
    paths = walk(source)
    below = [path.relative_to(source).parts[:-1] for path in paths]
    beside: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for parts in below:
        for i, name in enumerate(parts):
            beside[parts[:i]].add(name)
    faults: list[str] = []
    places = [_place(path, parts, beside, faults) for path, parts in zip(paths, below, strict=True)]
    faults += denied((place.label for place in places if place.label), label_kind)
    refuse(source, faults)
    rows = looked_at(_rows(source.resolve().name, places, label_kind), watch)
    _tell({place.path: place for place in places}, rows)
    return rows


def _place(
    path: Path,
    parts: tuple[str, ...],
    beside: Mapping[tuple[str, ...], set[str]],
    faults: list[str],
) -> _Place:
    classes = {
        i: label
        for i, label in enumerate(map(label_of, parts))
        if label and (parts[i] not in _DIGITS or beside[parts[:i]] <= _DIGITS)
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
    # A word that leaves nothing open (elbow) counts before one that does (arm).
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
    everywhere = set().union(*circles.values())
    rows = []
    for place, group in zip(places, _groups(root, places), strict=True):
        label = place.label
        near = circles[place.parent], everywhere
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


def _tell(places: Mapping[Path, _Place], rows: Sequence[Sample]) -> None:
    """Log what the folders leave open."""
    found = [places[row.path] for row in rows]
    if lost := [place.path.name for place in found if place.label is None]:
        logger.warning("%d pictures are in no class folder: %s", len(lost), named(lost))
    undivided = [place.path.name for place in found if place.split is None]
    if 0 < len(undivided) < len(found):
        logger.warning(
            "%d pictures are in no split folder, and so for training: %s",
            len(undivided),
            named(undivided),
        )
    if alone := sum(not place.patient for place in found):
        logger.warning(
            "%d pictures are grouped by their names, for want of patients: a split may not be "
            "disjoint by patient",
            alone,
        )


def _original(stem: str) -> str:
    """The name without what augmentation adds; never empty."""
    while (shorter := _AUGMENTED.sub("", stem)) not in (stem, ""):
        stem = shorter
    return stem
