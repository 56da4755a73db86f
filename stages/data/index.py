"""The one table that every stage trains and is evaluated on: its columns, checks and splits."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.atomic import write_atomic
from pipeline.domain import REGIONS, Array
from pipeline.errors import IndexFaultsError, InputMissingError, UsageError

from .adapters.columns import parse_csv

Split = Literal["train", "val", "test", "excluded"]
SPLITS: tuple[Split, ...] = ("train", "val", "test", "excluded")
SplitBy = Literal["patient", "picture"]
LABEL_KINDS = ("fracture", "abnormality", "unknown", "")
NONE, UNKNOWN = "none", "unknown"

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of the table.

    Attributes:
        path: Of the picture; in the file relative to the table's folder.
        regions: What is in view: names joined by ``;``, ``hand?`` where it is not known whether
            the hand is, ``none`` of the supported regions, or ``unknown``.
        label: 1 fractured (or abnormal), 0 not, None unknown.
        label_kind: What the label means: ``fracture``, ``abnormality``, or ``unknown`` where the
            data set does not say; empty without a label.
        group: Patient, or the safest stand-in; never divided between splits.
        study: Pictures taken together; may be empty.
        split: ``train``, ``val``, ``test``, or ``excluded`` from all three.
        origin: The data set.
        flags: Words such as ``hardware`` or ``truncated``, joined by ``;``.
        sha256: Of the file.
        boxes: Corners (x0, y0, x1, y1) of the marked fractures as fractions of width and height;
            empty where none are marked. In the file ``x0 y0 x1 y1`` joined by ``;``, and the
            column may be left out.
        licence: Of the picture, in its source's words; empty where it is not stated, and the
            column is left out where it never is.
        types: Of a fracture: names joined by ``;``, or empty where they are not known. The column
            may be left out.
        known_regions: The regions that fxpipe knew when the row was made, joined by ``;``: of any
            other ``regions`` says nothing. The column is left out where it holds the first three.
    """

    path: Path
    regions: str
    label: int | None
    label_kind: str
    group: str
    study: str
    split: Split
    origin: str
    flags: str
    sha256: str
    boxes: tuple[Box, ...] = ()
    licence: str = ""
    types: str = ""
    known_regions: str = ";".join(REGIONS)

    @property
    def type_names(self) -> tuple[str, ...]:
        """The types of its fracture; none where they are not known."""
        return tuple(filter(None, self.types.split(";")))

    def region_vector(self) -> Array:
        """(R,) float32 in the order of ``REGIONS``: 1 in view, 0 not, NaN unknown."""
        names = self.regions.split(";")
        known = [] if self.regions == UNKNOWN else self.known_regions.split(";")
        return np.array(
            [1.0 if r in names else 0.0 if r in known and f"{r}?" not in names else np.nan
             for r in REGIONS], np.float32,
        )  # fmt: skip

    @property
    def single_region(self) -> str | None:
        """The region, when exactly one supported region is in view for certain."""
        return self.regions if self.regions in REGIONS else None

    def shows(self, region: str) -> bool:
        """Whether the region is in view for certain."""
        return region in self.regions.split(";")


COLUMNS = tuple(field.name for field in fields(Sample))
_TYPE = re.compile("[a-z0-9][a-z0-9-]*")
NEEDED = COLUMNS[: COLUMNS.index("boxes")]
"""Columns without which a table is refused: all but those that few tables have."""
UNSAID = {"regions": UNKNOWN, "known_regions": "elbow;hand;shoulder"}
"""What a column that is left out means where it is not the empty text."""
_OMITTED = ("licence", "types", "known_regions")
"""Columns that are left out of a table where every row says what leaving them out means."""


@dataclass(frozen=True, slots=True)
class Index:
    """A checked table.

    Attributes:
        source: Its file.
        digest: SHA-256 of the file.
        samples: Its rows.
    """

    source: Path
    digest: str
    samples: tuple[Sample, ...]

    def of(self, split: Split) -> tuple[Sample, ...]:
        """The rows of one split."""
        return tuple(sample for sample in self.samples if sample.split == split)


def read_index(source: Path) -> Index:
    """Read and check a table that is to be trained or evaluated on.

    Raises:
        InputMissingError: There is no such file.
        IndexFaultsError: With every fault found, leaks and missing pictures among them.
    """
    index, faults = _read(source, NEEDED)
    faults += find_incomplete(index.samples) + find_leaks(index.samples)
    faults += find_repeated(index.samples)
    faults += [f"{s.path}: no such file" for s in index.samples if not s.path.is_file()]
    if faults:
        raise IndexFaultsError(str(source), faults)
    return index


def read_table(source: Path) -> Index:
    """Read a table that is to be audited: its rows are legal, but it may leak or lack pictures.

    Only the columns ``path`` and ``split`` are needed. Where a row has no group, it is its own.

    Raises:
        InputMissingError: There is no such file.
        IndexFaultsError: With every illegal value found.
    """
    index, faults = _read(source, ("path", "split"))
    if faults:
        raise IndexFaultsError(str(source), faults)
    alone = (s if s.group else replace(s, group=s.path.as_posix()) for s in index.samples)
    return replace(index, samples=tuple(alone))


def _read(source: Path, needed: Sequence[str]) -> tuple[Index, list[str]]:
    """The table and what is wrong with its rows, each by itself.

    Args:
        source: Its file.
        needed: Columns that must be there; others may be left out, and are then unknown.

    Raises:
        InputMissingError: There is no such file.
        IndexFaultsError: It has not the columns of a table.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise InputMissingError(
            f"{source}: cannot be read: {error.strerror}", "make it with `fxpipe index`"
        ) from error
    table = parse_csv(content, source)
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise IndexFaultsError(str(source), [f"no column {name!r}" for name in missing])
    faults: list[str] = []
    samples = []
    left_out = {name: UNSAID.get(name, "") for name in COLUMNS if name not in table.columns}
    table = table.assign(**left_out)
    for line, row in enumerate(table[list(COLUMNS)].to_dict("records"), start=2):
        label = {"": None, "0": 0, "1": 1}.get(row["label"], -1)
        if label == -1:
            faults.append(f"line {line}: label is {row['label']!r}, wanted 0, 1 or empty")
        try:
            boxes = read_boxes(row["boxes"])
        except ValueError as error:
            faults.append(f"line {line}: boxes are {row['boxes']!r}, {error}")
            boxes = ()
        changed: dict[str, Any] = {
            "path": source.parent / row["path"], "label": label, "boxes": boxes,
        }  # fmt: skip
        samples.append(Sample(**{str(k): v for k, v in row.items()} | changed))
    faults += find_illegal(samples)
    return Index(source, hashlib.sha256(content).hexdigest(), tuple(samples)), faults


def read_boxes(text: str) -> tuple[Box, ...]:
    """``x0 y0 x1 y1;…`` as numbers.

    Raises:
        ValueError: With what was wanted.
    """
    boxes = []
    for part in filter(None, text.split(";")):
        try:
            x0, y0, x1, y1 = map(float, part.split())
        except ValueError:
            raise ValueError("wanted x0 y0 x1 y1, joined by ;") from None
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ValueError("wanted 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
        boxes.append((x0, y0, x1, y1))
    return tuple(boxes)


def write_index(samples: Sequence[Sample], target: Path, allow_leaks: bool = False) -> None:
    """Write the table, paths relative to its folder, in one step.

    Args:
        samples: The rows.
        target: The file.
        allow_leaks: Whether a group, or a file's content, may lie in two splits.

    Raises:
        IndexFaultsError: The rows contradict themselves.
    """
    faults = find_illegal(samples) + find_incomplete(samples) + find_repeated(samples)
    faults += [] if allow_leaks else find_leaks(samples)
    if faults:
        raise IndexFaultsError(str(target), faults)
    folder = target.parent.resolve()
    columns = [
        name
        for name in COLUMNS
        if name not in _OMITTED
        or any(getattr(sample, name) != UNSAID.get(name, "") for sample in samples)
    ]
    rows = [
        {
            **{name: getattr(sample, name) for name in columns},
            "path": Path(os.path.relpath(sample.path.resolve(), folder)).as_posix(),
            "label": "" if sample.label is None else sample.label,
            "boxes": ";".join(" ".join(f"{x:g}" for x in box) for box in sample.boxes),
        }
        for sample in samples
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=columns)
    write_atomic(target, table.to_csv(index=False, lineterminator="\n").encode())


def find_faults(samples: Sequence[Sample]) -> list[str]:
    """Everything that is wrong with the rows as a table, in words."""
    return (
        find_illegal(samples)
        + find_incomplete(samples)
        + find_leaks(samples)
        + find_repeated(samples)
    )


def find_illegal(samples: Sequence[Sample]) -> list[str]:
    """Rows with a value that no row may have, in words."""
    faults = find_outdated(samples)
    legal = {NONE, UNKNOWN}
    tokens = {f"{region}{mark}" for region in REGIONS for mark in ("", "?")}
    for sample in samples:
        names = sample.regions.split(";")
        if sample.regions not in legal and not (
            set(names) <= tokens and len(names) == len(set(names))
        ):
            faults.append(f"{sample.path}: regions are {sample.regions!r}, wanted {sorted(tokens)}")
        if sample.split not in SPLITS:
            faults.append(f"{sample.path}: split is {sample.split!r}, wanted one of {SPLITS}")
        if sample.label_kind not in LABEL_KINDS or (sample.label is None and sample.label_kind):
            faults.append(f"{sample.path}: label {sample.label} of kind {sample.label_kind!r}")
        faults += _illegal_types(sample)
    return faults


def _illegal_types(sample: Sample) -> list[str]:
    names = sample.types.split(";") if sample.types else []
    told = f"{sample.path}: types are {sample.types!r}"
    if len(names) > len(set(names)) or not all(map(_TYPE.fullmatch, names)):
        return [f"{told}, wanted different names like transverse, joined by ;"]
    if names and sample.label != 1:
        return [f"{told}, but the label is {sample.label}: only fractures have types"]
    return []


def find_outdated(samples: Sequence[Sample]) -> list[str]:
    """Rows that exclude regions of which nothing was known when they were made, in words."""
    rows = [s for s in samples if s.regions == NONE and {*REGIONS} - {*s.known_regions.split(";")}]
    return [
        f"{row.path}: regions are {NONE!r}, from when fxpipe knew only {row.known_regions}: of the "
        f"others of {';'.join(REGIONS)} it says nothing ({len(rows)} such rows); make the table "
        "again with `fxpipe index`"
        for row in rows[:1]
    ]


def find_incomplete(samples: Sequence[Sample]) -> list[str]:
    """Rows that lack what training and evaluation cannot do without, in words."""
    faults = []
    for sample in samples:
        if sample.label is not None and not sample.label_kind:
            faults.append(f"{sample.path}: label {sample.label} of kind ''")
        if not sample.group:
            faults.append(f"{sample.path}: no group: without one a split may leak")
    return faults


def find_leaks(samples: Sequence[Sample]) -> list[str]:
    """What the rows alone tell of divided groups and divided files, in words."""
    faults = _divided(samples, "group", [sample.group for sample in samples])
    return faults + _divided(samples, "file content", [sample.sha256 for sample in samples])


def find_repeated(samples: Sequence[Sample]) -> list[str]:
    """Files with more than one row, in words."""
    repeated = [path for path, n in Counter(s.path for s in samples).items() if n > 1]
    return [f"{path}: listed more than once" for path in repeated]


def _divided(samples: Sequence[Sample], what: str, keys: Iterable[str]) -> list[str]:
    """Keys whose rows lie in more than one of train, val and test."""
    seen: dict[str, set[str]] = {}
    for sample, key in zip(samples, keys, strict=True):
        if sample.split != "excluded" and key:
            seen.setdefault(key, set()).add(sample.split)
    return [
        f"{what} {key} is in {' and '.join(sorted(splits))}: a leak"
        for key, splits in seen.items()
        if len(splits) > 1
    ]


def assign_splits(
    samples: Sequence[Sample], seed: int, parts: int = 7, by: SplitBy = "patient"
) -> list[Split]:
    """Stratified, seeded: one part for testing, one for validation, the rest to train.

    Args:
        samples: Rows; only ``group``, ``regions``, ``label``, ``origin`` and ``split`` matter.
        seed: Same seed and rows, same splits.
        parts: Number of equal parts, at least 3.
        by: ``patient`` keeps every group in one split. ``picture`` ignores groups, and so leaks:
            it shows what figures come of that, and is good for nothing else.

    Raises:
        UsageError: There are fewer groups (or pictures) than parts.
    """
    names: dict[int | None, Split] = {None: "excluded", 0: "test", 1: "val"}
    return [names.get(part, "train") for part in assign_parts(samples, seed, parts, by)]


def assign_parts(
    samples: Sequence[Sample], seed: int, parts: int, by: SplitBy = "patient"
) -> list[int | None]:
    """The part of each row, from 0: no group in two, each with its share of every stratum.

    Stratified by region and label together; rows that are ``excluded`` belong to none. Split by
    ``picture``, groups do not count.

    Raises:
        UsageError: There are fewer groups (or pictures) than parts.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    rows = [i for i, sample in enumerate(samples) if sample.split != "excluded"]
    groups = [samples[i].group for i in rows]
    units = len(set(groups)) if by == "patient" else len(rows)
    if units < parts:
        raise UsageError(
            f"found {units} {'groups' if by == 'patient' else 'pictures'} to split, "
            f"wanted at least {parts}",
            "ask for fewer parts, or add pictures",
        )
    strata = _strata([samples[i] for i in rows], parts)
    assigned: list[int | None] = [None] * len(samples)
    if by == "patient":
        grouped = StratifiedGroupKFold(n_splits=parts, shuffle=True, random_state=seed)
        folds = grouped.split(rows, strata, groups)
    else:
        single = StratifiedKFold(n_splits=parts, shuffle=True, random_state=seed)
        folds = single.split(rows, strata)
    for part, (_, chosen) in enumerate(folds):
        for position in chosen:
            assigned[rows[position]] = part
    return assigned


def _strata(samples: Sequence[Sample], parts: int) -> list[str]:
    """One name a row: data set, regions and label; what is too rare to be shared out is pooled."""
    strata = [f"{s.origin}/{s.regions}/{s.label}" for s in samples]
    counts = Counter(strata)
    common = {name for name, count in counts.items() if count >= parts}
    rare = "rare"
    if common and sum(n for name, n in counts.items() if name not in common) < parts:
        rare = counts.most_common(1)[0][0]
    return [name if name in common else rare for name in strata]


def count_table(samples: Sequence[Sample]) -> pd.DataFrame:
    """Pictures by regions (rows), split and label (columns)."""
    words = {None: "unlabelled", 0: "negative", 1: "positive"}
    frame = pd.DataFrame(
        {
            "regions": [sample.regions for sample in samples],
            "split": [sample.split for sample in samples],
            "label": [words[sample.label] for sample in samples],
        }
    )
    return pd.crosstab(frame["regions"], [frame["split"], frame["label"]])
