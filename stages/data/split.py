"""Splits other than that by group, and their leaks."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from pipeline.errors import UsageError

from ..samples import Sample, Split
from .index import assign_parts

_PARTS: tuple[Split, ...] = ("train", "val", "test")


def own_splits(samples: Sequence[Sample], seed: int, parts: int = 7) -> list[Split]:
    """The data set's own split, completed.

    If there is no test split, the validation split becomes the test split. If there is no
    validation split, one of ``parts`` equal parts of the training rows, split by group, becomes it.

    Args:
        samples: Rows whose ``split`` is the data set's own.
        seed: Seed of the assignment.
        parts: As in :func:`stages.data.index.assign_splits`.

    Raises:
        UsageError: The data set is not split, has no training split, or one that is too small.
    """
    splits: list[Split] = [sample.split for sample in samples]
    names = sorted(set(splits) - {"excluded"})
    if "train" not in names or len(names) < 2:
        raise UsageError(
            f"the data set has only {' and '.join(names) or 'excluded rows'}; it needs a split "
            "into train and test (or validation)",
            "split it by patient: --split patient",
        )
    if "test" not in names:
        splits = ["test" if split == "val" else split for split in splits]
    if "val" not in splits:
        training = [
            sample if split == "train" else replace(sample, split="excluded")
            for sample, split in zip(samples, splits, strict=True)
        ]
        assigned = assign_parts(training, seed, parts)
        splits = [
            "val" if part == 0 else split for part, split in zip(assigned, splits, strict=True)
        ]
    return splits


def held_out(samples: Sequence[Sample], origins: Collection[str]) -> list[bool]:
    """Which rows belong to data sets that are only for testing.

    Args:
        samples: The rows.
        origins: Origins of whole data sets (``negatives``), or of parts (``negatives/skimage``).

    Returns:
        Whether each row, or another one of its group, has one of the origins; groups stay whole.

    Raises:
        UsageError: No row has one of the origins.
    """
    available = {sample.origin for sample in samples}
    chosen = set()
    for name in origins:
        matches = {origin for origin in available if f"{origin}/".startswith(f"{name}/")}
        if not matches:
            near = difflib.get_close_matches(name, available, 1)
            raise UsageError(
                f"--hold-out {name}: no row has this origin; the table has "
                f"{', '.join(sorted(available))}",
                f"did you mean {near[0]}?" if near else "",
            )
        chosen |= matches
    groups = {sample.group for sample in samples if sample.origin in chosen}
    return [sample.group in groups for sample in samples]


@dataclass(frozen=True, slots=True)
class Leak:
    """Overlap of one split with another.

    Attributes:
        split: The affected split.
        other: The split that contains the same files or groups.
        pictures: Number of rows of ``split``.
        same_file: Number of them with an identical file in ``other``.
        same_group: Number of them whose group has rows in ``other``.
    """

    split: Split
    other: Split
    pictures: int
    same_file: int
    same_group: int

    def __str__(self) -> str:
        return (
            f"{self.split}: of {self.pictures} pictures, {self.same_file} are in {self.other} "
            f"byte for byte and {self.same_group} share a group with it"
        )


def count_leaks(samples: Sequence[Sample]) -> list[Leak]:
    """Every pair of splits that shares a file or a group, test before val."""
    members = {part: [s for s in samples if s.split == part] for part in _PARTS}
    leaks = []
    for other, split in sorted(combinations(_PARTS, 2), key=lambda pair: pair[1]):
        files = {s.sha256 for s in members[other] if s.sha256}
        groups = {s.group for s in members[other]}
        leak = Leak(
            split,
            other,
            len(members[split]),
            sum(s.sha256 in files for s in members[split]),
            sum(s.group in groups for s in members[split]),
        )
        if leak.same_file or leak.same_group:
            leaks.append(leak)
    return leaks
