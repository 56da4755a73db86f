"""The results as a Parquet file: the columns of results.csv with their types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType, UnionType
from typing import Any, Self, get_args

import pyarrow as pa
from pyarrow import parquet

from ..atomic import replacing
from ..outcome import Outcome
from .columns import RECORD_SCHEMA, TYPES, fields_of
from .json_lines import LINES
from .record import Record, digests_text, types_text
from .stream import naming_file
from .writer import Job, Writer

_TYPES = {int: pa.int64(), float: pa.float64()}
GROUP_ROWS = 10_000
"""Number of rows in a row group, and in memory at the same time."""


class ParquetWriter(Writer):
    """Writes the table at the end of a run, from all lines of results.jsonl.

    A Parquet file ends with an index of its parts, so it cannot be appended to. An unfinished run
    has no such file; a resumed run writes it from the lines of all its processes.

    Args:
        path: The file; an older one is removed immediately.
        lines: The file with the results as JSON lines.
        types: See :class:`~.csv_table.CsvWriter`.
    """

    def __init__(self, path: Path, lines: Path, *, types: bool = False) -> None:
        self._path, self._lines, self._schema = path, lines, schema(types)
        with naming_file(path):
            path.unlink(missing_ok=True)

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~.writer.Writer.opened`."""
        return cls(path, job.folder / LINES, types=job.weights.has_types)

    def write(self, outcome: Outcome) -> None:
        """Do nothing: the line of this outcome is read at the end."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        with (
            naming_file(self._path),
            replacing(self._path) as partial,
            parquet.ParquetWriter(partial, self._schema) as file,
        ):
            for rows in self._groups():
                file.write_table(pa.Table.from_pylist(rows, self._schema))

    def _groups(self) -> Iterator[list[Record]]:
        with self._lines.open(encoding="utf-8") as lines:
            while group := [_row(line) for line in islice(lines, GROUP_ROWS)]:
                yield group


def schema(types: bool) -> Any:
    """The Arrow schema of the table: every column with its type, and the version of the columns.

    Args:
        types: See :func:`~.columns.fields_of`.
    """
    fields = [_field(name, annotation) for name, (annotation, _) in fields_of(types).items()]
    return pa.schema(fields, {"fxpipe_schema_version": str(RECORD_SCHEMA)})


def _field(name: str, annotation: Any) -> Any:
    """The Arrow field of a column; enums, and dicts that results.csv stores as JSON, are texts."""
    optional = isinstance(annotation, UnionType)
    kind = get_args(annotation)[0] if optional else annotation
    return pa.field(name, _TYPES.get(kind, pa.string()), nullable=optional)


def _row(line: str) -> Record:
    record: Record = json.loads(line)
    # There is at most one finding per region; the list is empty if the record has no finding.
    leading = [finding for finding in record["findings"] if finding["region"] == record["region"]]
    types: dict[str, float] = leading[0].get("types", {}) if leading else {}
    return record | {
        "bundle_digests": digests_text(record["bundle_digests"]),
        TYPES: types_text(types),
    }
