"""Streamed exports of results: the rows of ``fxpipe run`` on the same files, except for times."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Row, select

from ..config import RunConfig
from ..errors import ImageError
from ..outcome import Outcome
from ..report.columns import fields_of
from ..report.csv_table import table_row
from ..report.json_lines import json_line
from ..report.record import digests_text
from . import engine_state
from . import tables as t
from .accounts import Principal
from .blobs import Blobs
from .database import Database
from .settings import engine_config
from .stored_outcome import restored, with_picture
from .visibility import visible
from .zip_stream import ZipStream

LEFT_OUT, LEFT_OUT_COLUMNS = "left-out.csv", ("picture", "reason")
_CHUNK = 100


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection of the exported results.

    Attributes:
        principal: The user; blind readers export only pictures that they have reviewed.
        state, answer: Required state and answer; None for all.
        since, until: Time of arrival, milliseconds since 1970; None without a limit.
        identifiers: Whether to include patient and study.
    """

    principal: Principal
    state: str | None = None
    answer: str | None = None
    since: int | None = None
    until: int | None = None
    identifiers: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """A result to export.

    Attributes:
        arrival: Row of table ``arrival``.
        outcome: Same outcome as from a run.
        row: Row of the page, with heatmaps.
        digests: SHA-256 by bundle name of the engine that judged it.
    """

    arrival: Row[Any]
    outcome: Outcome
    row: dict[str, Any]
    digests: dict[str, str]


def arrivals(database: Database, selection: Selection) -> Iterator[list[Row[Any]]]:
    """The selected arrivals, oldest first, in batches."""
    arrival, last = t.arrival.c, 0
    conditions = [arrival.deleted_ms.is_(None), *visible(selection.principal)]
    for column, value in ((arrival.state, selection.state), (arrival.answer, selection.answer)):
        if value is not None:
            conditions.append(column == value)
    if selection.since is not None:
        conditions.append(arrival.received_ms >= selection.since)
    if selection.until is not None:
        conditions.append(arrival.received_ms < selection.until)
    query = select(t.arrival).where(*conditions).order_by(arrival.id).limit(_CHUNK)
    while True:
        with database.read() as connection:
            rows = list(connection.execute(query.where(arrival.id > last)).all())
        if not rows:
            return
        last = rows[-1].id
        yield rows


def results(database: Database, selection: Selection) -> Iterator[Exported]:
    """The results of the selected pictures, in the order of arrival and of frames."""
    for chunk in arrivals(database, selection):
        with database.read() as connection:
            by_content = _details(connection, [row.sha256 for row in chunk])
        for arrival in chunk:
            for one in by_content[arrival.sha256, arrival.engine_id]:
                outcome = restored(
                    one.outcome, one.name or "picture", arrival.name or "picture",
                    identity=selection.identifiers,
                )  # fmt: skip
                yield Exported(arrival, outcome, one.row, one.digests)


def _details(connection: Connection, hashes: list[str]) -> dict[tuple[str, int], list[Any]]:
    rows = connection.execute(
        select(
            t.result.c.sha256, t.result.c.engine_id, t.job.c.name, t.detail.c.outcome,
            t.detail.c.row, t.engine.c.digests,
        )
        .join(t.job, t.job.c.id == t.result.c.job_id)
        .join(t.detail, t.detail.c.result_id == t.result.c.id)
        .join(t.engine, t.engine.c.id == t.result.c.engine_id)
        .where(t.result.c.sha256.in_(hashes))
        .order_by(t.result.c.frame)
    )  # fmt: skip
    found: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for row in rows:
        found[row.sha256, row.engine_id].append(row)
    return found


def as_csv(database: Database, selection: Selection) -> Iterator[bytes]:
    """``results.csv``."""
    with database.read() as connection:
        active = engine_state.active_engine(connection)
    types = bool(active is not None and active.card.get("types"))
    text = io.StringIO()
    writer = csv.DictWriter(text, tuple(fields_of(types)), lineterminator="\n")
    writer.writeheader()
    for one in results(database, selection):
        writer.writerow(table_row(one.outcome, Path(), types=types))
        yield _taken(text)
    yield _taken(text)


def _taken(text: io.StringIO) -> bytes:
    content = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return content


def as_json_lines(database: Database, selection: Selection) -> Iterator[bytes]:
    """``results.jsonl``."""
    for one in results(database, selection):
        yield json_line(one.outcome, Path()).encode()


def as_fhir(database: Database, selection: Selection) -> Iterator[bytes]:
    """``results.fhir.json``."""
    from ..report.fhir import FhirWriter  # loading its codes is slow

    with TemporaryDirectory(prefix="fxpipe-") as folder:
        path = Path(folder) / "results.fhir.json"
        with path.open("xb+") as file:
            with FhirWriter(path, Path()) as writer:
                for one in results(database, selection):
                    writer.write(one.outcome)
                    yield file.read()
            yield file.read()


def as_dicom(
    database: Database, selection: Selection, blobs: Blobs, run: RunConfig
) -> Iterator[bytes]:
    """A ZIP archive of reports, overlays and contours of the DICOM pictures.

    Pictures without objects are in ``left-out.csv``, if there are any.
    """
    from ..report.dicom.objects import DicomWriter

    config = engine_config(run).model_copy(
        update={"identifiers": "keep" if selection.identifiers else "omit", "heatmaps": None}
    )
    archive = ZipStream()
    writers: dict[str, DicomWriter] = {}
    left_out: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="fxpipe-") as name:
        folder = Path(name)
        grouped = groupby(results(database, selection), lambda one: one.arrival.id)
        for number, frames in grouped:
            for one in frames:
                if one.outcome.header is None or not one.outcome.findings:
                    continue
                try:
                    path = blobs.path(one.arrival.sha256)
                    outcome = with_picture(one.outcome, one.row, path, config)
                except (ImageError, OSError) as error:
                    reason = f"cannot be read ({type(error).__name__})"
                    left_out.append({"picture": number, "reason": reason})
                    continue
                key = digests_text(one.digests)
                if key not in writers:
                    writers[key] = DicomWriter(folder, config, one.digests)
                writers[key].write(outcome)
                files = sorted(folder.iterdir())
                if not files:
                    reason = "no object can refer to it"
                    left_out.append({"picture": number, "reason": reason})
                for file in files:
                    yield from archive.add(f"{number}/{file.name}", file)
                    file.unlink()
    if left_out:
        yield from archive.add(LEFT_OUT, table(LEFT_OUT_COLUMNS, left_out))
    yield archive.close()


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A CSV file with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
