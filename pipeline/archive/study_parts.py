"""The studies of one chunk, and their combination over all chunks.

A study may have pictures in several chunks. Each chunk stores what it knows about its studies,
without verdicts; the merge combines these parts, in a temporary database instead of in memory.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from io import TextIOWrapper
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from ..atomic import replacing
from ..domain import ImageRef
from ..outcome import OperatingPoint, Status
from ..outcome_json import finding_from_json, finding_to_json
from ..report.csv_table import BOM, cell
from ..report.stream import naming_file, write_whole
from ..report.studies_table import STUDY_COLUMNS, StudyState, StudyStatesWriter, study_record
from ..report.writer import Job

NAME = "studies.jsonl"

Json = dict[str, Any]


class StudyPartsWriter(StudyStatesWriter):
    """Writes what one chunk contributes to each study, in order of their first pictures."""

    @classmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """See :meth:`~pipeline.report.writer.Writer.opened`."""
        return cls(path, job.root)

    def _save(self) -> None:
        lines = (_line(key, study, self._root) for key, study in self._studies.items())
        write_whole(self._path, "".join(lines).encode("ascii"))


def write_studies(
    path: Path, parts: Iterable[Path], points: Mapping[str, OperatingPoint], root: Path, *,
    bom: bool = False,
) -> int:  # fmt: skip
    """Write the table of studies from the parts of all chunks; without a study no file is written.

    Args:
        path: The table to write; an older one is removed.
        parts: Files of :class:`StudyPartsWriter`, in the order of the chunks.
        points: Operating points for whole studies, by specialist.
        root: See :func:`pipeline.report.record.to_record`.
        bom: Whether the table begins with a byte-order mark.

    Returns:
        Number of studies.

    Raises:
        OutputError: It cannot be written.
        OSError, ValueError: A part cannot be read.
    """
    count = 0
    with naming_file(path):
        path.unlink(missing_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".studies-") as folder:
        studies = _combined(Path(folder) / "parts.sqlite", parts, root)
        first = next(studies, None)
        if first is None:
            return 0
        with (
            naming_file(path), replacing(path) as partial, partial.open("wb") as file,
            TextIOWrapper(file, "utf-8", newline="") as text,
        ):  # fmt: skip
            text.write(BOM if bom else "")
            table = csv.DictWriter(text, STUDY_COLUMNS, lineterminator="\n")
            table.writeheader()
            while first is not None:
                key, study = first
                record = study_record(key, study, points, root)
                table.writerow({name: cell(value) for name, value in record.items()})
                count += 1
                first = next(studies, None)
    return count


def _combined(
    database: Path, parts: Iterable[Path], root: Path
) -> Iterator[tuple[str, StudyState]]:
    """Every study with all its pictures, in order of the first ones."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;"
            "CREATE TABLE part (position INTEGER PRIMARY KEY, study TEXT, line TEXT);"
        )
        connection.execute("BEGIN")
        for path in parts:
            with path.open(encoding="ascii") as lines:
                connection.executemany(
                    "INSERT INTO part (study, line) VALUES (?, ?)",
                    ((json.loads(line)["study"], line) for line in lines),
                )
        connection.execute("COMMIT")
        connection.execute("CREATE INDEX by_study ON part (study)")
        rows = connection.execute(
            "SELECT part.study, line FROM part JOIN "
            "(SELECT study, min(position) AS first FROM part GROUP BY study) AS study "
            "ON part.study = study.study ORDER BY first, position"
        )
        for key, group in groupby(rows, key=lambda row: row[0]):
            study = StudyState()
            for _, line in group:
                study.merge(_state(json.loads(line), root))
            yield key, study


def _line(key: str, study: StudyState, root: Path) -> str:
    values = {
        "study": key,
        "ends": {status.value: number for status, number in study.ends.items()},
        "fired": sorted(study.fired),
        "best": [
            [str(image.path and image.path.relative_to(root)), image.frame, finding_to_json(call)]
            for image, call in study.best
        ],
    }
    return json.dumps(values, separators=(",", ":"), allow_nan=False) + "\n"


def _state(values: Json, root: Path) -> StudyState:
    return StudyState(
        Counter({Status(name): number for name, number in values["ends"].items()}),
        set(values["fired"]),
        tuple(
            (ImageRef(root / path, frame), finding_from_json(finding))
            for path, frame, finding in values["best"]
        ),
    )
