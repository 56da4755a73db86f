"""The folds of a cross-validation: the same table with other splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.errors import ConfigError

from .data.acquisition import FEWEST_GROUPS, keep_groups_whole, left_out, read_acquisitions
from .data.adapters.pictures import Watch, unwatched
from .data.index import Index, Sample, Split, assign_parts

By = Literal["group", "acquisition"]


@dataclass(frozen=True, slots=True)
class Folds:
    """The tables of a cross-validation.

    Attributes:
        tables: One a fold.
        names: One a fold: its number, or the acquisition that is left out.
        by: What tells the parts apart.
        note: What was done to groups, as a sentence; empty when nothing was.
    """

    tables: tuple[Index, ...]
    names: tuple[str, ...]
    by: By = "group"
    note: str = ""

    def __len__(self) -> int:
        return len(self.tables)


def folds_by_group(index: Index, folds: int, seed: int, splits: Sequence[Split]) -> Folds:
    """Equal parts, stratified, no group in two: one tests, the next validates, the others train.

    Args:
        index: Checked table.
        folds: Number of parts, at least 3.
        seed: Same seed and rows, same parts.
        splits: Splits of the table whose pictures take part; the others are left out.

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
    """Leave one acquisition out: it tests, and what else there is trains and validates.

    The validation pictures are a stratified part of the others, whole groups of them: nothing of
    the acquisition that tests has any influence (training-domain validation; Gulrajani and
    Lopez-Paz 2020, arXiv 2007.01434). A group of several acquisitions tests with one of them, and
    its pictures of another take no part when that one tests. Acquisitions with too few groups, and
    pictures of no supported region from elsewhere, train and validate in every fold.

    Args:
        index: Checked table.
        parts: One part in as many validates, at least 3.
        seed: Same seed and rows, same validation pictures.
        splits: As for :func:`folds_by_group`.
        watch: Told of the progress: every picture is read for its size.

    Raises:
        ConfigError: No picture is in these splits, or they show fewer than two acquisitions.
        ImageError: A picture cannot be read.
    """
    pool = [sample for sample in _pool(index, splits) if sample.split != "excluded"]
    read = read_acquisitions(pool, watch)
    own, divided = keep_groups_whole([sample.group for sample in pool], read)
    found = left_out(pool, own)
    if len(found) < 2:
        raise ConfigError(
            f"{index.source}: found {len(found)} acquisition(s) with at least {FEWEST_GROUPS} "
            f"groups of supported regions ({', '.join(found) or 'none'}), wanted two",
            "cross-validate --by group",
        )
    tables = []
    for fold in found:
        tested = [sample for sample, name in zip(pool, own, strict=True) if name == fold]
        others = [
            sample for sample, *names in zip(pool, own, read, strict=True) if fold not in names
        ]
        assigned = assign_parts(others, seed, parts)
        roles: dict[object, Split] = {
            sample.path: "val" if part == 0 else "train"
            for sample, part in zip(others, assigned, strict=True)
        }
        roles |= {sample.path: "test" for sample in tested}
        samples = tuple(replace(s, split=roles.get(s.path, "excluded")) for s in index.samples)
        name = f"{index.digest} {parts} {seed} {' '.join(splits)} acquisition {fold}"
        tables.append(Index(index.source, hashlib.sha256(name.encode()).hexdigest(), samples))
    few = sum(name not in found for name in own)
    note = (
        f"{divided} group(s) of several acquisitions, each kept whole; {few} picture(s) of "
        "other acquisitions train or validate in every fold"
    )
    return Folds(tuple(tables), tuple(found), "acquisition", note)


def _pool(index: Index, splits: Sequence[Split]) -> list[Sample]:
    """The rows, excluded where they take no part."""
    pool = [
        sample if sample.split in splits else replace(sample, split="excluded")
        for sample in index.samples
    ]
    if all(sample.split == "excluded" for sample in pool):
        raise ConfigError(f"{index.source}: no picture in {' or '.join(splits)}")
    return pool
