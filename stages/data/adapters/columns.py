"""Which column of a CSV file holds what: as the user says, or by its plain name."""

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
"""One number, or several as boxes have them."""


def read_csv(file: Path) -> pd.DataFrame:
    """A CSV file, every value as its text; see :func:`parse_csv`.

    Raises:
        InputMissingError: It cannot be read.
        IndexFaultsError: It is no table.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputMissingError(f"{file}: cannot be read: {error.strerror}") from error
    return parse_csv(content, file)


def parse_csv(content: bytes, file: Path) -> pd.DataFrame:
    """A table, every value as its text, as spreadsheet programs save it.

    Comma, semicolon or tab between the columns, UTF-8 or UTF-16 with its mark. Where semicolons
    part the columns, numbers with a decimal comma get a point.

    Args:
        content: The file.
        file: Its name, for messages.

    Raises:
        IndexFaultsError: It is no table.
    """
    try:
        text = text_of(content)
    except ValueError as error:
        raise IndexFaultsError(str(file), [str(error)]) from error
    separator = separator_of(text)
    try:
        table = pd.read_csv(StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        # Not quoted: the error may repeat a line, and so an identifier.
        raise IndexFaultsError(
            str(file), [f"no CSV table with one header line ({type(error).__name__})"]
        ) from error
    return table.map(_with_points) if separator == ";" else table


def _with_points(text: str) -> str:
    return text.replace(",", ".") if _DECIMAL_COMMAS.fullmatch(text) else text


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
