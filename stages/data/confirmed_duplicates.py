"""Grouping of confirmed duplicate pairs from an audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import IndexFaultsError

from ..samples import Sample
from .adapters.columns import read_csv, rows_of
from .audit import TWINS
from .exact_duplicates import settle_pairs

_REQUIRED = ("kind", "path_1", "path_2")


def join_confirmed(samples: Sequence[Sample], files: Sequence[Path], folder: Path) -> list[Sample]:
    """Put the pictures of confirmed pairs into one group, and exclude those whose labels differ.

    Args:
        samples: Rows of a data set.
        files: ``pairs.csv`` of ``fxpipe audit``, without rejected rows. Only the kinds that mean
            two pictures of the same exposure are used.
        folder: Folder of the audited table; the paths are relative to it.

    Raises:
        InputMissingError: A file cannot be read.
        IndexFaultsError: A file has another format, or names a picture that is not in the data
            set.
    """
    row_of = {sample.path.resolve(): i for i, sample in enumerate(samples)}
    pairs: list[tuple[int, int]] = []
    for file in files:
        table = read_csv(file)
        if missing := [name for name in _REQUIRED if name not in table.columns]:
            raise IndexFaultsError(
                str(file),
                [f"no column {name!r}: not the pairs.csv of an audit" for name in missing],
            )
        faults: list[str] = []
        for line, row in rows_of(table):
            if row["kind"] not in TWINS:
                continue
            names = row["path_1"], row["path_2"]
            first, second = (row_of.get((folder / name).resolve()) for name in names)
            faults += [
                f"line {line}: no picture {folder / name} in the data set"
                for name, i in zip(names, (first, second), strict=True)
                if i is None
            ]
            if first is not None and second is not None:
                pairs.append((first, second))
        if faults:
            raise IndexFaultsError(str(file), faults)
    return settle_pairs(samples, pairs)
