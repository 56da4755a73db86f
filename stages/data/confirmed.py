"""Pairs of pictures that an audit found and somebody let stand: they belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import IndexFaultsError

from .adapters.columns import read_csv, rows_of
from .audit import TWINS
from .index import Sample
from .twins import settle_pairs

_WANTED = ("kind", "path_1", "path_2")


def join_confirmed(samples: Sequence[Sample], files: Sequence[Path], folder: Path) -> list[Sample]:
    """Put the pictures of confirmed pairs into one group, and exclude those whose labels differ.

    Args:
        samples: Rows of a data set.
        files: ``pairs.csv`` of ``fxpipe audit``, without the rows that somebody struck out. Of its
            kinds those count that say that two pictures show one exposure.
        folder: Of the table that was audited; the paths are relative to it.

    Raises:
        InputMissingError: A file cannot be read.
        IndexFaultsError: It is no such file, or names a picture that the data set does not have.
    """
    places = {sample.path.resolve(): i for i, sample in enumerate(samples)}
    pairs: list[tuple[int, int]] = []
    for file in files:
        table = read_csv(file)
        if missing := [name for name in _WANTED if name not in table.columns]:
            raise IndexFaultsError(
                str(file), [f"no column {name!r}, wanted pairs.csv of an audit" for name in missing]
            )
        faults: list[str] = []
        for line, row in rows_of(table):
            if row["kind"] not in TWINS:
                continue
            names = row["path_1"], row["path_2"]
            found = [places.get((folder / name).resolve()) for name in names]
            faults += [
                f"line {line}: no picture {folder / name} in the data set"
                for name, place in zip(names, found, strict=True)
                if place is None
            ]
            one, other = found
            if one is not None and other is not None:
                pairs.append((one, other))
        if faults:
            raise IndexFaultsError(str(file), faults)
    return settle_pairs(samples, pairs)
