"""Transactions on results: exactly one attempt finishes a job.

Every function takes a connection inside a write operation (:meth:`.database.Database.submit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    insert,
    select,
    update,
)

from ..outcome import Status
from ..report.page_row import URGENCY
from ..studies import pseudonym
from . import tables as t
from .database import insert_row, now_ms
from .engine_state import is_active
from .job_queue import Claim, is_owned
from .worklist import add_event, update_arrivals

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewResult:
    """The outcome of one picture, to be stored.

    Attributes:
        frame: Frame of the file, or -1.
        status: See :class:`pipeline.outcome.Status`.
        answer: Verdict; the status if there is no verdict.
        region: Region of the leading finding; None without one.
        probability: Probability of the leading finding.
        outcome: By :func:`pipeline.outcome_json.to_json`.
        row: By :func:`pipeline.report.page_row.to_row`.
    """

    frame: int
    status: str
    answer: str
    region: str | None
    probability: float | None
    outcome: Json
    row: Json

    @property
    def rank(self) -> int:
        """Position in the worklist, 0 is most urgent."""
        return URGENCY.index(self.answer)


def finish(connection: Connection, claimed: Claim, results: Sequence[NewResult],
           identity: Mapping[str, str] | None) -> list[int]:  # fmt: skip
    """Store the results of a job, unless another attempt owns it.

    Args:
        connection: Inside a write operation.
        claimed: The job.
        results: One result for each picture of the file.
        identity: Patient and study of the file, from its DICOM header.

    Returns:
        Numbers of the results; none if they were discarded.
    """
    now = now_ms()
    done = connection.execute(
        update(t.job).where(is_owned(claimed)).values(state="done", finished_ms=now, error=None)
    )
    if not done.rowcount:
        return []
    engine = connection.scalar(select(t.job.c.engine_id).where(t.job.c.id == claimed.job))
    numbers = []
    for one in results:
        number = _store_result(connection, claimed, engine, one, now)
        connection.execute(
            insert(t.detail).values(result_id=number, outcome=one.outcome, row=one.row)
        )
        numbers.append(number)
    if engine is not None and is_active(connection, engine):
        uid = (identity or {}).get("StudyInstanceUID")
        if all(one.status == Status.UNSUPPORTED for one in results):
            _leave_study(connection, claimed.sha256)
        elif uid:
            join_study(connection, claimed.sha256, uid, identity or {})
        for arrived in update_arrivals(connection, claimed.sha256, engine):
            add_event(connection, "judged", arrived, {})
    return numbers


def _store_result(
    connection: Connection, claimed: Claim, engine: int | None, new: NewResult, now: int
) -> int:
    """Insert a result; a picture that was deleted and received again keeps its number."""
    result = t.result
    values = {
        "status": new.status, "answer": new.answer, "region": new.region,
        "probability": new.probability, "rank": new.rank, "created_ms": now,
    }  # fmt: skip
    own = and_(result.c.job_id == claimed.job, result.c.frame == new.frame)
    known = connection.scalar(select(result.c.id).where(own))
    if known is not None:
        connection.execute(update(result).where(own).values(**values))
        return int(known)
    place = {"job_id": claimed.job, "sha256": claimed.sha256, "engine_id": engine}
    return insert_row(connection, result, **place, frame=new.frame, **values)


def join_study(connection: Connection, sha256: str, uid: str, identity: Mapping[str, str]) -> None:
    """Add the arrivals of a file to its study, and mark the study as not stable.

    Args:
        connection: Inside a write operation.
        sha256: The file.
        uid: Its StudyInstanceUID.
        identity: Values by DICOM keyword, for a new study.
    """
    key, now = pseudonym(uid), now_ms()
    number = connection.scalar(select(t.study.c.id).where(t.study.c.key == key))
    if number is None:
        number = insert_row(
            connection, t.study, key=key, uid=uid, identity=dict(identity), last_seen_ms=now
        )
    else:
        connection.execute(
            update(t.study)
            .where(t.study.c.id == number)
            .values(uid=uid, identity=dict(identity), last_seen_ms=now, stable_ms=None)
        )
    connection.execute(
        update(t.arrival).where(t.arrival.c.sha256 == sha256).values(study_id=number)
    )


def _leave_study(connection: Connection, sha256: str) -> None:
    """Remove a file that is not a radiograph, such as a document or CT slice, from its study."""
    connection.execute(update(t.arrival).where(t.arrival.c.sha256 == sha256).values(study_id=None))
