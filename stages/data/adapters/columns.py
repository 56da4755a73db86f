"""Which column of a CSV file holds what: as the user says, or by its plain name."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from pipeline.errors import IndexFaultsError, InputMissingError, UsageError

logger = logging.getLogger(__name__)


def read_csv(file: Path) -> pd.DataFrame:
    """A CSV file, every value as its text.

    Raises:
        InputMissingError: It cannot be read.
        IndexFaultsError: It is no table.
    """
    try:
        return pd.read_csv(file, dtype=str, keep_default_na=False)
    except OSError as error:
        raise InputMissingError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, pd.errors.ParserError) as error:
        # Not quoted: the error may repeat a line, and so an identifier.
        raise IndexFaultsError(
            str(file), [f"no CSV table with one header line ({type(error).__name__})"]
        ) from error


def rows_of(table: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number in the file, if no value holds a line break, and values by column."""
    for line, row in enumerate(table.to_dict("records"), start=2):
        yield line, {str(name): str(value) for name, value in row.items()}


def parse_columns(words: tuple[str, ...]) -> dict[str, str]:
    """``("path=Image,label=Fracture", …)`` as column by field.

    Raises:
        UsageError: Not of this form, or a field given twice.
    """
    given: dict[str, str] = {}
    for part in (part for word in words for part in word.split(",")):
        field, equals, column = (piece.strip() for piece in part.partition("="))
        if not (field and equals and column):
            raise UsageError(f"--columns: found {part!r}, wanted FIELD=COLUMN")
        if field in given:
            raise UsageError(f"--columns: found {field} twice, wanted one column")
        given[field] = column
    return given


def choose(
    source: Path,
    columns: Mapping[str, str],
    present: list[str],
    plain: Mapping[str, tuple[str, ...]],
) -> dict[str, str]:
    """The column of each field that has one; which were chosen is logged.

    Args:
        source: The file.
        columns: What the user says, column by field.
        present: The file's columns.
        plain: Names by which a field is known without being told, the best first.

    Raises:
        UsageError: An unknown field, or a column that is not there.
    """
    for field, column in columns.items():
        if field not in plain:
            near = difflib.get_close_matches(field, plain, 1)
            raise UsageError(
                f"--columns: {field!r} is no field, wanted one of {', '.join(plain)}",
                f"did you mean {near[0]}?" if near else "",
            )
        if column not in present:
            near = difflib.get_close_matches(column, present, 1)
            raise UsageError(
                f"{source}: no column {column!r} for {field}, found {', '.join(present)}",
                f"did you mean {near[0]}?" if near else "",
            )
    simple = {_simple(name): name for name in reversed(present)}
    chosen = dict(columns)
    for field, names in plain.items():
        free = [simple[n] for n in map(_simple, names) if n in simple]
        free = [name for name in free if name not in chosen.values()]
        if field not in chosen and free:
            chosen[field] = free[0]
    told = (f"{f}={c}{'' if f in columns else ' (by its name)'}" for f, c in chosen.items())
    logger.info("%s: columns %s", source, ", ".join(told))
    return chosen


def _simple(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
