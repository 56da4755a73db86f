"""Transactions on engines: registration, promotion, retirement, comparison.

Every function takes a connection inside a write operation, or inside a read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    select,
    update,
)  # fmt: skip

from ..errors import FxpipeError
from . import audit_log, engine_state, job_queue, resending, worklist
from . import tables as t
from .database import now_ms, serialise

BACKFILL_PICTURES = 200
"""Number of earlier pictures that a new candidate judges for the comparison."""
MOST_CANDIDATES = 2
PROMOTION = "promotion"
"""Key of the setting that stores the progress of the update after a promotion."""
_CHUNK = 100


class EngineStateError(FxpipeError):
    """The state of the engine does not allow this."""


@dataclass(frozen=True, slots=True)
class NewEngine:
    """Weights with settings, to be registered.

    Attributes:
        digest: Identity of weights and settings.
        weights: Absolute path of their folder.
        digests: SHA-256 by bundle name.
        settings: All settings that may change a verdict.
        version: Version of fxpipe.
        card: Published figures, from :func:`.engine_card.card_of`.
    """

    digest: str
    weights: str
    digests: dict[str, str]
    settings: dict[str, Any]
    version: str
    card: dict[str, Any]


def register(connection: Connection, new: NewEngine) -> Row[Any]:
    """Row of an engine, added if it is new; the first engine becomes active."""
    serialise(connection)
    known = _by_digest(connection, new)
    if known is None:
        state = "candidate" if engine_state.active_engine(connection) else "active"
        number = _insert(connection, new, state)
        if state == "active":
            job_queue.queue_all(connection, number)
    elif known.weights != new.weights:
        connection.execute(
            update(t.engine).where(t.engine.c.id == known.id).values(weights=new.weights)
        )
    row = _by_digest(connection, new)
    assert row is not None  # noqa: S101
    return row


def add_candidate(connection: Connection, new: NewEngine, actor: str) -> int:
    """Register a candidate and queue the latest pictures for it; return its number.

    Raises:
        EngineStateError: It is already the active engine or a candidate, or there are too many.
    """
    known = _by_digest(connection, new)
    if known is not None and known.state != "retired":
        raise EngineStateError(f"these weights are already the {known.state} engine {known.id}")
    candidates = select(func.count()).where(t.engine.c.state == "candidate")
    if (connection.scalar(candidates) or 0) >= MOST_CANDIDATES:
        raise EngineStateError(
            f"found {MOST_CANDIDATES} candidates, expected fewer: retire or promote one"
        )
    if known is None:
        number = _insert(connection, new, "candidate")
    else:
        number = int(known.id)
        connection.execute(
            update(t.engine)
            .where(t.engine.c.id == number)
            .values(state="candidate", weights=new.weights)
        )
    backfill(connection, number)
    audit_log.append(connection, actor, "add engine", f"engine/{number}", {"digest": new.digest})
    worklist.add_event(connection, "engine", number, {})
    return number


def backfill(connection: Connection, number: int) -> None:
    """Queue the latest judged pictures for a candidate."""
    arrival = t.arrival.c
    newest = select(arrival.sha256).where(
        arrival.deleted_ms.is_(None), arrival.state.in_(("answered", "unsupported", "failed"))
    )
    hashes = newest.order_by(arrival.id.desc()).limit(BACKFILL_PICTURES).subquery()
    _queue(connection, number, arrival.sha256.in_(select(hashes.c.sha256)), job_queue.BACKFILL)


def promote(connection: Connection, number: int, actor: str) -> None:
    """Make an engine the active one.

    Waiting pictures are queued for it. :func:`refresh_some` then updates the pictures that it has
    judged; the others keep the results of the previous engine.

    Raises:
        LookupError: The engine does not exist.
    """
    row = by_number(connection, number)
    if row is None:
        raise LookupError(number)
    if row.state == "active":
        return
    engine, arrival = t.engine.c, t.arrival.c
    old = connection.scalar(select(engine.id).where(engine.state == "active"))
    connection.execute(update(t.engine).where(engine.state == "active").values(state="retired"))
    connection.execute(update(t.engine).where(engine.id == number).values(state="active"))
    _cancel_waiting(connection, old)
    waiting = and_(arrival.deleted_ms.is_(None), arrival.state.in_(("waiting", "reading")))
    _queue(connection, number, waiting, None)
    connection.execute(delete(t.setting).where(t.setting.c.key == PROMOTION))
    connection.execute(
        insert(t.setting).values(key=PROMOTION, value={"engine": number, "after": 0})
    )
    audit_log.append(connection, actor, "promote engine", f"engine/{number}", {"before": old})
    worklist.add_event(connection, "engine", number, {})


def retire(connection: Connection, number: int, actor: str) -> None:
    """Stop a candidate; its results remain.

    Raises:
        LookupError: The engine does not exist.
        EngineStateError: It is the active engine.
    """
    state = connection.scalar(select(t.engine.c.state).where(t.engine.c.id == number))
    if state is None:
        raise LookupError(number)
    if state == "active":
        raise EngineStateError("the active engine cannot be retired: promote another one")
    connection.execute(update(t.engine).where(t.engine.c.id == number).values(state="retired"))
    _cancel_waiting(connection, number)
    audit_log.append(connection, actor, "retire engine", f"engine/{number}")
    worklist.add_event(connection, "engine", number, {})


def refresh_some(connection: Connection) -> bool:
    """Update a batch of pictures to the results of a promoted engine; False if none is left.

    Studies that were sent and whose verdict changes are sent again.
    """
    row = connection.scalar(select(t.setting.c.value).where(t.setting.c.key == PROMOTION))
    if row is None:
        return False
    arrival, result = t.arrival.c, t.result.c
    rows = connection.execute(
        select(arrival.id, arrival.sha256, arrival.study_id, arrival.engine_id)
        .where(arrival.id > row["after"], arrival.deleted_ms.is_(None))
        .where(
            exists().where(result.sha256 == arrival.sha256, result.engine_id == row["engine"])
        )
        .order_by(arrival.id)
        .limit(_CHUNK)
    ).all()  # fmt: skip
    again = resending.changed(connection, rows, row["engine"])
    for sha256 in {one.sha256 for one in rows}:
        worklist.update_arrivals(connection, sha256, row["engine"])
    resending.make_due(connection, again)
    own = t.setting.c.key == PROMOTION
    if rows:
        value = {"engine": row["engine"], "after": rows[-1].id}
        connection.execute(update(t.setting).where(own).values(value=value))
    else:
        connection.execute(delete(t.setting).where(own))
        worklist.add_event(connection, "engine", row["engine"], {})
    return bool(rows)


def differences(number: int, active: int) -> Select[Any]:
    """Pictures that two engines judged: with the answers, regions and probabilities of both.

    Each frame of a file is compared separately.
    """
    before, after = t.result.alias("before"), t.result.alias("after")
    values = (
        one.c[name].label(f"{one.name}_{name}")
        for one in (before, after)
        for name in ("answer", "region", "probability")
    )
    same_picture = and_(
        before.c.sha256 == after.c.sha256, before.c.frame == after.c.frame,
        before.c.engine_id == active,
    )  # fmt: skip
    return (
        select(after.c.sha256, after.c.frame, (before.c.answer == after.c.answer).label("agrees"))
        .add_columns(*values)
        .join_from(after, before, same_picture)
        .where(after.c.engine_id == number)
    )


def _by_digest(connection: Connection, new: NewEngine) -> Row[Any] | None:
    return connection.execute(select(t.engine).where(t.engine.c.digest == new.digest)).first()


def _insert(connection: Connection, new: NewEngine, state: str) -> int:
    key = connection.execute(
        insert(t.engine).values(
            digest=new.digest, weights=new.weights, digests=new.digests, settings=new.settings,
            version=new.version, card=new.card, state=state, created_ms=now_ms(),
        )
    ).inserted_primary_key  # fmt: skip
    assert key is not None  # noqa: S101
    return int(key[0])


def _cancel_waiting(connection: Connection, engine: int | None) -> None:
    job = t.job.c
    connection.execute(
        update(t.job)
        .where(job.engine_id == engine, job.state == "waiting")
        .values(state="cancelled")
    )


def _queue(
    connection: Connection, engine: int, of: ColumnElement[bool], priority: int | None
) -> None:
    """Add missing jobs of an engine for the contents of arrivals.

    Args:
        connection: Inside a write operation.
        engine: Number of the engine.
        of: Condition on arrivals.
        priority: Priority of the jobs; None for the priority of the source of each arrival.
    """
    job, arrival = t.job.c, t.arrival.c
    known = select(job.sha256).where(job.engine_id == engine)
    by_source = case(job_queue.PRIORITY, value=arrival.source, else_=0)
    wanted = by_source if priority is None else literal(priority)
    hashes = select(arrival.sha256).where(of)
    again = and_(job.engine_id == engine, job.sha256.in_(hashes))
    connection.execute(
        update(t.job)
        .where(again, job.state == "cancelled")
        .values(state="waiting", blame=0, error=null())
    )
    if priority is None:
        connection.execute(
            update(t.job)
            .where(again, job.state == "waiting", job.priority < job_queue.PRIORITY["dicom"])
            .values(priority=job_queue.PRIORITY["dicom"])
        )
    names = (
        "sha256", "engine_id", "name", "state", "priority", "attempt", "blame", "created_ms",
    )  # fmt: skip
    new = (
        select(
            arrival.sha256, literal(engine), func.min(arrival.name), literal("waiting"),
            func.max(wanted), literal(0), literal(0), literal(now_ms()),
        )
        .where(of, arrival.sha256.not_in(known))
        .group_by(arrival.sha256)
    )  # fmt: skip
    connection.execute(insert(t.job).from_select(names, new))


def by_number(connection: Connection, number: int) -> Row[Any] | None:
    """Row of an engine; None if it does not exist."""
    return connection.execute(select(t.engine).where(t.engine.c.id == number)).first()
