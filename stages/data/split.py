"""Divisions into training, validation and test beside that by group, and what they leak."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from pipeline.errors import UsageError

from .index import Sample, Split, assign_parts

_PARTS: tuple[Split, ...] = ("train", "val", "test")


def own_splits(samples: Sequence[Sample], seed: int, parts: int = 7) -> list[Split]:
    """The division that the rows came with, completed.

    A set with training and validation alone is tested on what it calls validation. Where there is
    no validation part, one of ``parts`` equal parts of the training rows, cut by group, becomes it.

    Args:
        samples: Rows whose ``split`` is the data set's own.
        seed: Of the cut.
        parts: As in :func:`stages.data.index.assign_splits`.

    Raises:
        UsageError: The set is not divided, has no training part, or one too small to be cut.
    """
    splits: list[Split] = [sample.split for sample in samples]
    found = sorted(set(splits) - {"excluded"})
    if "train" not in found or len(found) < 2:
        raise UsageError(
            f"found only {' and '.join(found) or 'excluded rows'} in the data set, "
            "wanted one that is divided into train and test (or validation)",
            "split it by patient: --split patient",
        )
    if "test" not in found:
        splits = ["test" if split == "val" else split for split in splits]
    if "val" not in splits:
        training = [
            sample if split == "train" else replace(sample, split="excluded")
            for sample, split in zip(samples, splits, strict=True)
        ]
        cut = assign_parts(training, seed, parts)
        splits = ["val" if part == 0 else split for part, split in zip(cut, splits, strict=True)]
    return splits


def held_out(samples: Sequence[Sample], origins: Collection[str]) -> list[bool]:
    """Which rows belong to data sets that are for testing alone.

    Args:
        samples: The rows.
        origins: Of whole data sets (``negatives``), or of parts of them (``negatives/skimage``).

    Returns:
        Whether each row, or another one of its group, is of such an origin: a group is never
        divided.

    Raises:
        UsageError: No row has one of the origins.
    """
    there = {sample.origin for sample in samples}
    chosen = set()
    for wanted in origins:
        found = {origin for origin in there if f"{origin}/".startswith(f"{wanted}/")}
        if not found:
            near = difflib.get_close_matches(wanted, there, 1)
            raise UsageError(
                f"--hold-out {wanted}: no row has this origin, found {', '.join(sorted(there))}",
                f"did you mean {near[0]}?" if near else "",
            )
        chosen |= found
    groups = {sample.group for sample in samples if sample.origin in chosen}
    return [sample.group in groups for sample in samples]


@dataclass(frozen=True, slots=True)
class Leak:
    """How much of one split another one knows.

    Attributes:
        split: The one that suffers.
        other: The one that knows.
        pictures: Rows of ``split``.
        same_file: Of them, those whose very bytes are in ``other``.
        same_group: Of them, those whose group has rows in ``other``.
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
