"""Reading of CSV files, and mapping of their columns to fields, by option or by name."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path

import pandas as pd

from pipeline.errors import IndexFaultsError, InputMissingError, UsageError
from pipeline.spreadsheet import separator_of, text_of

logger = logging.getLogger(__name__)

PATH_COLUMNS = ("path", "file", "file_path", "file_name")
LABEL_COLUMNS = ("label", "fractured", "fracture", "abnormal", "abnormality", "class", "target")
"""Names by which a column of paths or of labels is recognised, the best first."""

_DECIMAL_COMMAS = re.compile(r"\s*-?\d+(,\d+)?([\s;]+-?\d+(,\d+)?)*\s*")
"""One number, or several separated by spaces or semicolons, as in boxes."""


def read_csv(file: Path) -> pd.DataFrame:
    """Read a CSV file with every value as text; see :func:`parse_csv`.

    Raises:
        InputMissingError: The file cannot be read.
        IndexFaultsError: It is not a table.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputMissingError(f"{file}: cannot be read: {error.strerror}") from error
    return parse_csv(content, file)


def parse_csv(content: bytes, file: Path) -> pd.DataFrame:
    """Parse a table as saved by a spreadsheet program; every value is text.

    The separator is comma, semicolon or tab, the encoding UTF-8 or UTF-16 with a byte order mark.
    If semicolons separate the columns, decimal commas become decimal points.

    Args:
        content: Bytes of the file.
        file: Its name, for messages.

    Raises:
        IndexFaultsError: It is not a table.
    """
    try:
        text = text_of(content)
    except ValueError as error:
        raise IndexFaultsError(str(file), [str(error)]) from error
    separator = separator_of(text)
    try:
        table = pd.read_csv(StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        # The error is not quoted: it may contain a line of the file, and so an identifier.
        raise IndexFaultsError(
            str(file), [f"not a CSV table with one header line ({type(error).__name__})"]
        ) from error
    return table.map(_with_points) if separator == ";" else table


def _with_points(text: str) -> str:
    return text.replace(",", ".") if _DECIMAL_COMMAS.fullmatch(text) else text


def rows_of(table: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number (if no value contains a line break) and the values by column."""
    for line, row in enumerate(table.to_dict("records"), start=2):
        yield line, {str(name): str(value) for name, value in row.items()}


def parse_columns(words: tuple[str, ...]) -> dict[str, str]:
    """Parse ``("path=Image,label=Fracture", …)`` to a mapping from field to column.

    Raises:
        UsageError: The form is invalid, or a field occurs twice.
    """
    overrides: dict[str, str] = {}
    for part in (part for word in words for part in word.split(",")):
        field, equals, column = (piece.strip() for piece in part.partition("="))
        if not (field and equals and column):
            raise UsageError(f"--columns: found {part!r}, expected FIELD=COLUMN")
        if field in overrides:
            raise UsageError(f"--columns: found {field} twice, expected one column")
        overrides[field] = column
    return overrides


def choose(
    source: Path,
    columns: Mapping[str, str],
    present: list[str],
    plain: Mapping[str, tuple[str, ...]],
) -> dict[str, str]:
    """Choose the column of each field, and log the choice.

    Args:
        source: The file.
        columns: The user's choice, column by field.
        present: The file's columns.
        plain: Usual column names of each field, the preferred one first.

    Raises:
        UsageError: A field is unknown, or a column does not exist.
    """
    for field, column in columns.items():
        if field not in plain:
            near = difflib.get_close_matches(field, plain, 1)
            raise UsageError(
                f"--columns: {field!r} is not a field, expected one of {', '.join(plain)}",
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
    choices = (f"{f}={c}{'' if f in columns else ' (by name)'}" for f, c in chosen.items())
    logger.info("%s: columns %s", source, ", ".join(choices))
    return chosen


def _simple(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
