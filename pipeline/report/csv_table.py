"""The results as a CSV table, written row by row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Self

from ..outcome import Outcome
from .columns import TYPES, fields_of
from .record import digests_text, to_record, types_text
from .stream import BEGINNING, Mark
from .writer import Job, StreamWriter

BOM = "\ufeff"
"""The byte-order mark. Without it Excel reads a table in the code page of its locale."""

_FORMULA_STARTS = ("=", "+", "-", "@")


class CsvWriter(StreamWriter):
    """Writes UTF-8 CSV with a header; every row is flushed before the next picture.

    If a text starts with ``=``, ``+``, ``-`` or ``@``, a spreadsheet would run it as a formula, so
    it gets an apostrophe in front, as OWASP advises. JSON lines contain it unchanged.

    Args:
        path: The file; an existing one is replaced.
        root: See :func:`pipeline.report.record.to_record`.
        after: Position where the table of an unfinished run continues.
        bom: Whether the file begins with a byte-order mark.
        types: Whether the weights predict types of fracture: then the table has their column.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        after: Mark = BEGINNING,
        *,
        bom: bool = False,
        types: bool = False,
    ) -> None:
        self._root, self._types = root, types
        super().__init__(path, after)
        self._writer = csv.DictWriter(self.stream, tuple(fields_of(types)), lineterminator="\n")
        if not after.size:
            self.stream.write(BOM if bom else "")
            self._writer.writeheader()
            self.stream.flush()

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~.writer.Writer.opened`."""
        types = job.weights.has_types
        return cls(path, job.root, job.after(path), bom=job.config.csv_bom, types=types)

    def write(self, outcome: Outcome) -> None:
        """Append one row."""
        self._writer.writerow(table_row(outcome, self._root, types=self._types))
        self.stream.flush()


def table_row(outcome: Outcome, root: Path, *, types: bool) -> dict[str, Any]:
    """The cells of an outcome by column.

    Args:
        outcome: What is known about one input.
        root: See :func:`pipeline.report.record.to_record`.
        types: See :class:`CsvWriter`.
    """
    record = to_record(outcome, root)
    record["bundle_digests"] = digests_text(record["bundle_digests"])
    if types:
        record[TYPES] = types_text(outcome.leading.types if outcome.leading else {})
    return {key: cell(value) for key, value in record.items()}


def cell(value: Any) -> Any:
    """The value for a table cell: an apostrophe is put before a text that could be a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return value
