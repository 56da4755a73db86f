"""The results as JSON lines: the flat record, and all findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

from ..outcome import Outcome
from .columns import RECORD_SCHEMA
from .record import finding_record, plain, to_record
from .stream import BEGINNING, Mark
from .writer import Job, StreamWriter

LINES = "results.jsonl"


class JsonLinesWriter(StreamWriter):
    """Writes one JSON object per line in UTF-8; every line is flushed before the next picture.

    Args:
        path: The file; an existing one is replaced.
        root: See :func:`pipeline.report.record.to_record`.
        after: Position where the file of an unfinished run continues.
    """

    def __init__(self, path: Path, root: Path, after: Mark = BEGINNING) -> None:
        self._root = root
        super().__init__(path, after)

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~.writer.Writer.opened`."""
        return cls(path, job.root, job.after(path))

    def write(self, outcome: Outcome) -> None:
        """Append one line."""
        self.stream.write(json_line(outcome, self._root))
        self.stream.flush()


def json_line(outcome: Outcome, root: Path) -> str:
    """The line of an outcome.

    Args:
        outcome: What is known about one input.
        root: See :func:`pipeline.report.record.to_record`.
    """
    header = outcome.header
    record = {
        "schema_version": RECORD_SCHEMA,
        **to_record(outcome, root),
        "findings": [finding_record(finding) for finding in outcome.findings],
        "flag_reasons": {flag.name: flag.reason for flag in outcome.flags},
        "header": None if header is None else {k: plain(str(v)) for k, v in header.items()},
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
