"""Folds of a cross-validation: the same table with other splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.errors import ConfigError

from ..data.acquisition import MIN_GROUPS, keep_groups_whole, left_out, read_acquisitions
from ..data.adapters.pictures import Watch, unwatched
from ..data.index import assign_parts
from ..samples import Index, Sample, Split

By = Literal["group", "acquisition"]


@dataclass(frozen=True, slots=True)
class Folds:
    """The tables of a cross-validation.

    Attributes:
        tables: One per fold.
        names: One per fold: its number, or the acquisition that is left out.
        by: Criterion of the split.
        note: How groups were handled, as a sentence; may be empty.
    """

    tables: tuple[Index, ...]
    names: tuple[str, ...]
    by: By = "group"
    note: str = ""

    def __len__(self) -> int:
        return len(self.tables)


def folds_by_group(index: Index, folds: int, seed: int, splits: Sequence[Split]) -> Folds:
    """Equal, stratified parts of whole groups: test, validation, and training for the others.

    Args:
        index: Checked table.
        folds: Number of parts, at least 3.
        seed: Equal seed and rows give equal parts.
        splits: Splits of the table to use; the others are excluded.

    Raises:
        ConfigError: No picture is in these splits.
    """
    pool = _pool(index, splits)
    parts = assign_parts(pool, seed, folds)
    tables = []
    for fold in range(folds):
        names: dict[int | None, Split] = {None: "excluded", fold: "test", (fold + 1) % folds: "val"}
        samples = tuple(
            replace(sample, split=names.get(part, "train"))
            for sample, part in zip(pool, parts, strict=True)
        )
        name = f"{index.digest} {folds} {seed} {' '.join(splits)} {fold}"
        tables.append(Index(index.source, hashlib.sha256(name.encode()).hexdigest(), samples))
    return Folds(tuple(tables), tuple(str(n) for n in range(1, folds + 1)))


def folds_by_acquisition(
    index: Index, parts: int, seed: int, splits: Sequence[Split], watch: Watch = unwatched
) -> Folds:
    """Leave one acquisition out: it is the test split; the others are for training and validation.

    The validation pictures are a stratified part of the others, in whole groups: the tested
    acquisition has no influence (training-domain validation; Gulrajani and Lopez-Paz 2020, arXiv
    2007.01434). A group of several acquisitions belongs to one of them; if another of them is
    tested, its pictures of that one are excluded. Acquisitions with too few groups, and pictures
    without a supported region from other sources, are for training and validation in every fold.

    Args:
        index: Checked table.
        parts: One of this many parts is the validation split, at least 3.
        seed: Equal seed and rows give equal validation pictures.
        splits: As for :func:`folds_by_group`.
        watch: Progress callback: every picture is read for its size.

    Raises:
        ConfigError: No picture is in these splits, or they show fewer than two acquisitions.
        ImageError: A picture cannot be read.
    """
    pool = [sample for sample in _pool(index, splits) if sample.split != "excluded"]
    read = read_acquisitions(pool, watch)
    acquisitions, divided = keep_groups_whole([sample.group for sample in pool], read)
    names = left_out(pool, acquisitions)
    if len(names) < 2:
        raise ConfigError(
            f"{index.source}: {len(names)} acquisition(s) with at least {MIN_GROUPS} groups of "
            f"supported regions ({', '.join(names) or 'none'}); at least two are needed",
            "cross-validate --by group",
        )
    tables = []
    for fold in names:
        rows = list(zip(pool, acquisitions, read, strict=True))
        tested = [sample for sample, name, _ in rows if name == fold]
        others = [sample for sample, *both in rows if fold not in both]
        assigned = assign_parts(others, seed, parts)
        roles: dict[object, Split] = {
            sample.path: "val" if part == 0 else "train"
            for sample, part in zip(others, assigned, strict=True)
        }
        roles |= {sample.path: "test" for sample in tested}
        samples = tuple(replace(s, split=roles.get(s.path, "excluded")) for s in index.samples)
        name = f"{index.digest} {parts} {seed} {' '.join(splits)} acquisition {fold}"
        tables.append(Index(index.source, hashlib.sha256(name.encode()).hexdigest(), samples))
    few = sum(name not in names for name in acquisitions)
    note = (
        f"{divided} group(s) of several acquisitions, each kept whole; {few} picture(s) of "
        "other acquisitions are in training or validation in every fold"
    )
    return Folds(tuple(tables), tuple(names), "acquisition", note)


def _pool(index: Index, splits: Sequence[Split]) -> list[Sample]:
    """All rows; those of other splits are excluded."""
    pool = [
        sample if sample.split in splits else replace(sample, split="excluded")
        for sample in index.samples
    ]
    if all(sample.split == "excluded" for sample in pool):
        raise ConfigError(f"{index.source}: no picture in {' or '.join(splits)}")
    return pool
