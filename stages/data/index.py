"""The index, the table for training and evaluation of all stages: columns, checks, splits."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.atomic import write_atomic
from pipeline.domain import REGIONS
from pipeline.errors import IndexFaultsError, InputMissingError, UsageError

from ..samples import LABEL_KINDS, NONE, SPLITS, UNKNOWN, Box, Index, Sample, Split, SplitBy
from .adapters.columns import parse_csv

COLUMNS = tuple(field.name for field in fields(Sample))
_TYPE = re.compile("[a-z0-9][a-z0-9-]*")
NEEDED = COLUMNS[: COLUMNS.index("boxes")]
"""Required columns."""
DEFAULTS = {"regions": UNKNOWN, "known_regions": "elbow;hand;shoulder"}
"""Values of omitted columns, other than the empty string."""
_OMITTABLE = ("licence", "types", "known_regions")
"""Columns that are omitted from a table if every row holds the default."""


def read_index(source: Path) -> Index:
    """Read and check a table for training or evaluation.

    Raises:
        InputMissingError: The file does not exist.
        IndexFaultsError: There are faults, including leaks and missing pictures; all are listed.
    """
    index, faults = _read(source, NEEDED)
    faults += find_incomplete(index.samples) + find_leaks(index.samples)
    faults += find_repeated(index.samples)
    faults += [f"{s.path}: file not found" for s in index.samples if not s.path.is_file()]
    if faults:
        raise IndexFaultsError(str(source), faults)
    return index


def read_table(source: Path) -> Index:
    """Read a table for an audit: values must be valid, but leaks and missing pictures are allowed.

    Only the columns ``path`` and ``split`` are required. A row without a group is its own group.

    Raises:
        InputMissingError: The file does not exist.
        IndexFaultsError: There are invalid values; all are listed.
    """
    index, faults = _read(source, ("path", "split"))
    if faults:
        raise IndexFaultsError(str(source), faults)
    grouped = (s if s.group else replace(s, group=s.path.as_posix()) for s in index.samples)
    return replace(index, samples=tuple(grouped))


def _read(source: Path, required: Sequence[str]) -> tuple[Index, list[str]]:
    """Read the table and the faults of single rows.

    Args:
        source: File of the table.
        required: Required columns; others are optional and then unknown.

    Raises:
        InputMissingError: The file does not exist.
        IndexFaultsError: A required column is missing.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise InputMissingError(
            f"{source}: cannot be read: {error.strerror}", "make it with `fxpipe index`"
        ) from error
    table = parse_csv(content, source)
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise IndexFaultsError(str(source), [f"no column {name!r}" for name in missing])
    faults: list[str] = []
    samples = []
    omitted = {name: DEFAULTS.get(name, "") for name in COLUMNS if name not in table.columns}
    table = table.assign(**omitted)
    for line, row in enumerate(table[list(COLUMNS)].to_dict("records"), start=2):
        label = {"": None, "0": 0, "1": 1}.get(row["label"], -1)
        if label == -1:
            faults.append(f"line {line}: label is {row['label']!r}, expected 0, 1 or empty")
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
    """Parse ``x0 y0 x1 y1;…`` to numbers.

    Raises:
        ValueError: The form or the range is invalid; the message gives the valid ones.
    """
    boxes = []
    for part in filter(None, text.split(";")):
        try:
            x0, y0, x1, y1 = map(float, part.split())
        except ValueError:
            raise ValueError("expected x0 y0 x1 y1, joined by ;") from None
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ValueError("expected 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
        boxes.append((x0, y0, x1, y1))
    return tuple(boxes)


def write_index(samples: Sequence[Sample], target: Path, allow_leaks: bool = False) -> None:
    """Write the table atomically, with paths relative to its folder.

    Args:
        samples: The rows.
        target: The file.
        allow_leaks: Whether a group, or a file's content, may be in two splits.

    Raises:
        IndexFaultsError: The rows have faults; all are listed.
    """
    faults = find_illegal(samples) + find_incomplete(samples) + find_repeated(samples)
    faults += [] if allow_leaks else find_leaks(samples)
    if faults:
        raise IndexFaultsError(str(target), faults)
    folder = target.parent.resolve()
    columns = [
        name
        for name in COLUMNS
        if name not in _OMITTABLE
        or any(getattr(sample, name) != DEFAULTS.get(name, "") for sample in samples)
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
    """Messages for all faults of the rows as a table."""
    return (
        find_illegal(samples)
        + find_incomplete(samples)
        + find_leaks(samples)
        + find_repeated(samples)
    )


def find_illegal(samples: Sequence[Sample]) -> list[str]:
    """Messages for rows with invalid values."""
    faults = find_outdated(samples)
    legal = {NONE, UNKNOWN}
    tokens = {f"{region}{mark}" for region in REGIONS for mark in ("", "?")}
    for sample in samples:
        names = sample.regions.split(";")
        if sample.regions not in legal and not (
            set(names) <= tokens and len(names) == len(set(names))
        ):
            faults.append(
                f"{sample.path}: regions are {sample.regions!r}, expected {sorted(tokens)}"
            )
        if sample.split not in SPLITS:
            faults.append(f"{sample.path}: split is {sample.split!r}, expected one of {SPLITS}")
        if sample.label_kind not in LABEL_KINDS or (sample.label is None and sample.label_kind):
            faults.append(f"{sample.path}: label {sample.label} of kind {sample.label_kind!r}")
        faults += _illegal_types(sample)
    return faults


def _illegal_types(sample: Sample) -> list[str]:
    names = sample.types.split(";") if sample.types else []
    message = f"{sample.path}: types are {sample.types!r}"
    if len(names) > len(set(names)) or not all(map(_TYPE.fullmatch, names)):
        return [f"{message}, expected different names like transverse, joined by ;"]
    if names and sample.label != 1:
        return [f"{message}, but the label is {sample.label}: only fractures have types"]
    return []


def find_outdated(samples: Sequence[Sample]) -> list[str]:
    """Message for rows without a region that were made before all regions were supported."""
    rows = [s for s in samples if s.regions == NONE and {*REGIONS} - {*s.known_regions.split(";")}]
    return [
        f"{row.path}: regions are {NONE!r}, but the row was made when fxpipe supported only "
        f"{row.known_regions}, not all of {';'.join(REGIONS)} ({len(rows)} such rows); make the "
        "table again with `fxpipe index`"
        for row in rows[:1]
    ]


def find_incomplete(samples: Sequence[Sample]) -> list[str]:
    """Messages for rows that lack a value required for training and evaluation."""
    faults = []
    for sample in samples:
        if sample.label is not None and not sample.label_kind:
            faults.append(f"{sample.path}: label {sample.label} of kind ''")
        if not sample.group:
            faults.append(f"{sample.path}: no group; without one a split may leak")
    return faults


def find_leaks(samples: Sequence[Sample]) -> list[str]:
    """Messages for groups and file contents that are in several splits."""
    faults = _divided(samples, "group", [sample.group for sample in samples])
    return faults + _divided(samples, "file content", [sample.sha256 for sample in samples])


def find_repeated(samples: Sequence[Sample]) -> list[str]:
    """Messages for files with more than one row."""
    repeated = [path for path, n in Counter(s.path for s in samples).items() if n > 1]
    return [f"{path}: listed more than once" for path in repeated]


def _divided(samples: Sequence[Sample], what: str, keys: Iterable[str]) -> list[str]:
    """Messages for keys whose rows are in more than one of train, val and test."""
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
    """Assign stratified, seeded splits: one part for test, one for validation, the rest to train.

    Args:
        samples: Rows; only ``group``, ``regions``, ``label``, ``origin`` and ``split`` are used.
        seed: The same seed and rows give the same splits.
        parts: Number of equal parts, at least 3.
        by: ``patient`` keeps every group in one split. ``picture`` ignores groups, and so leaks;
            its only use is to demonstrate the effect on the figures.

    Raises:
        UsageError: There are fewer groups (or pictures) than parts.
    """
    names: dict[int | None, Split] = {None: "excluded", 0: "test", 1: "val"}
    return [names.get(part, "train") for part in assign_parts(samples, seed, parts, by)]


def assign_parts(
    samples: Sequence[Sample], seed: int, parts: int, by: SplitBy = "patient"
) -> list[int | None]:
    """Assign each row to a part, from 0: groups stay together, strata are balanced.

    Strata are combinations of data set, regions and label; ``excluded`` rows have no part. With
    ``by="picture"`` groups are ignored.

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
            f"expected at least {parts}",
            "use fewer parts, or add pictures",
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
    """Stratum of each row: data set, regions and label; strata too rare to divide are pooled."""
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
