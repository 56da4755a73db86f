"""Transactions on the columns of the worklist: state, answer and study of the arrivals.

Every function takes a connection inside a write operation (:meth:`.database.Database.submit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    func,
    insert,
    select,
    update,
)

from ..outcome import Status
from ..report.page_row import URGENCY
from . import tables as t
from . import verdicts
from .database import now_ms, serialise

Json = dict[str, Any]


WAITING_RANK = len(URGENCY)
"""Rank of a picture without a result: below all answers."""


def ranks(state: str | None, answer: str | None, *, blind: bool) -> Sequence[int]:
    """All ranks that pictures with a state and an answer can have.

    Args:
        state: None for any.
        answer: None for any.
        blind: Whether unsupported pictures can be shown as *answered*.
    """
    if answer is not None:
        return [URGENCY.index(answer)]
    if state in ("waiting", "reading"):
        return [WAITING_RANK]
    if state == "answered":
        return range(URGENCY.index(Status.UNSUPPORTED) + blind)
    return range(WAITING_RANK + 1) if state is None else [URGENCY.index(state)]


def update_arrivals(connection: Connection, sha256: str, engine: int) -> list[int]:
    """Copy the most urgent result of an engine to the arrivals of a file; return their numbers."""
    result, arrival = t.result.c, t.arrival
    row = connection.execute(
        select(result.status, result.answer, result.region, result.probability, result.rank)
        .where(result.sha256 == sha256, result.engine_id == engine)
        .order_by(result.rank, result.probability.desc().nulls_last(), result.frame)
        .limit(1)
    ).first()
    if row is None:
        return []
    own = and_(arrival.c.sha256 == sha256, arrival.c.deleted_ms.is_(None))
    numbers = list(connection.scalars(select(arrival.c.id).where(own)))
    study = connection.scalar(
        select(arrival.c.study_id).where(own, arrival.c.study_id.is_not(None)).limit(1)
    )
    state = "answered" if row.status == Status.OK else row.status
    connection.execute(
        update(arrival).where(own).values(
            state=state, rank=row.rank, answer=row.answer, region=row.region,
            probability=row.probability, study_id=study, engine_id=engine,
            review=verdicts.current(connection, sha256),
        )
    )  # fmt: skip
    if study is not None:
        refresh_study(connection, study)
    return numbers


def set_state(connection: Connection, hashes: Sequence[str], before: str, after: str) -> None:
    """Set the state of arrivals that are in the state ``before``, by content."""
    arrival = t.arrival.c
    for start in range(0, len(hashes), 500):
        part = hashes[start : start + 500]
        connection.execute(
            update(t.arrival)
            .where(arrival.sha256.in_(part), arrival.state == before)
            .values(state=after)
        )


def refresh_study(connection: Connection, number: int) -> None:
    """Update the picture count of a study; delete UID and identity if it is empty."""
    arrival = t.arrival.c
    row = connection.execute(
        select(func.count().label("pictures"), func.min(arrival.rank).label("rank")).where(
            arrival.study_id == number, arrival.deleted_ms.is_(None)
        )
    ).one()
    values: Json = {
        "pictures": row.pictures,
        "rank": WAITING_RANK if row.rank is None else row.rank,
    }
    if not row.pictures:
        values |= {"uid": None, "identity": None}
    connection.execute(update(t.study).where(t.study.c.id == number).values(**values))


def add_event(connection: Connection, kind: str, subject: int | None, data: Json) -> None:
    """Add an event for open pages; events become visible in order of their numbers."""
    serialise(connection)
    connection.execute(
        insert(t.event).values(kind=kind, subject=subject, data=data, at_ms=now_ms())
    )
