"""Transactions on single jobs: retry failed jobs and cancel waiting ones."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, select, update

from ..errors import FxpipeError
from ..outcome import Status
from ..report.page_row import URGENCY
from . import audit_log, engine_state, worklist
from . import tables as t


class JobStateError(FxpipeError):
    """The state of the job does not allow this."""


def find(connection: Connection, number: int) -> Row[Any]:
    """A job.

    Raises:
        LookupError: The job does not exist.
    """
    row = connection.execute(select(t.job).where(t.job.c.id == number)).first()
    if row is None:
        raise LookupError(number)
    return row


def retry(connection: Connection, number: int, actor: str) -> None:
    """Queue a cancelled job, or one with a failed result, which is removed.

    Raises:
        LookupError: The job does not exist.
        JobStateError: The job is waiting, has results that are reviewed or did not fail, its engine
            is retired, or its picture was deleted.
    """
    row = find(connection, number)
    result = t.result.c
    own = result.job_id == number
    if not _arrivals(connection, row.sha256):
        raise JobStateError("the picture was deleted")
    state = connection.scalar(select(t.engine.c.state).where(t.engine.c.id == row.engine_id))
    if state == "retired":
        raise JobStateError("the engine is retired, expected an active engine or a candidate")
    failed = connection.scalar(select(func.count()).where(own, result.status == Status.FAILED))
    if row.state not in ("done", "cancelled") or (row.state == "done" and not failed):
        raise JobStateError("expected a cancelled job or a failed result")
    numbers = select(result.id).where(own)
    if connection.scalar(select(func.count()).where(t.review.c.result_id.in_(numbers))):
        raise JobStateError("its results were reviewed")
    connection.execute(delete(t.detail).where(t.detail.c.result_id.in_(numbers)))
    connection.execute(delete(t.result).where(own))
    connection.execute(
        update(t.job)
        .where(t.job.c.id == number)
        .values(
            state="waiting",
            attempt=0,
            blame=0,
            owner=None,
            lease_ms=None,
            error=None,
            finished_ms=None,
        )
    )
    _set_state(connection, row, "waiting", worklist.WAITING_RANK, None)
    audit_log.append(connection, actor, "retry job", f"job/{number}")


def cancel(connection: Connection, number: int, actor: str) -> None:
    """Cancel a waiting job; its pictures are ``failed`` until the file is received again.

    Raises:
        LookupError: The job does not exist.
        JobStateError: The job is not waiting.
    """
    row = find(connection, number)
    if row.state != "waiting":
        raise JobStateError(f"found a job that is {row.state}, expected a waiting job")
    connection.execute(update(t.job).where(t.job.c.id == number).values(state="cancelled"))
    failed = Status.FAILED.value
    _set_state(connection, row, failed, URGENCY.index(failed), failed)
    audit_log.append(connection, actor, "cancel job", f"job/{number}")


def _arrivals(connection: Connection, sha256: str) -> list[Row[Any]]:
    arrival = t.arrival.c
    query = select(arrival.id, arrival.study_id).where(
        arrival.sha256 == sha256, arrival.deleted_ms.is_(None)
    )
    rows: list[Any] = list(connection.execute(query).all())
    return rows


def _set_state(
    connection: Connection, job: Row[Any], state: str, rank: int, answer: str | None
) -> None:
    """Set a state without results for the pictures of a job of the active engine."""
    if not engine_state.is_active(connection, job.engine_id):
        return
    arrival = t.arrival.c
    connection.execute(
        update(t.arrival)
        .where(and_(arrival.sha256 == job.sha256, arrival.deleted_ms.is_(None)))
        .values(
            state=state, rank=rank, answer=answer, region=None, probability=None, engine_id=None
        )
    )
    rows = _arrivals(connection, job.sha256)
    for study in {row.study_id for row in rows if row.study_id is not None}:
        worklist.refresh_study(connection, study)
    for row in rows:
        worklist.add_event(connection, "judged", row.id, {})
