"""A data set's own division into training, validation and test, and what it leaks."""

from __future__ import annotations

from collections.abc import Sequence
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
