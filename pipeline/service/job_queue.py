"""Transactions on jobs: a job is the judgement of one content by one engine.

Every function takes a connection inside a write operation (:meth:`.database.Database.submit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    case,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from . import tables as t
from .database import now_ms
from .engine_state import is_active
from .worklist import set_state

Json = dict[str, Any]


KILLED, CRASHED = 1, 4
"""Blame of the jobs of a process that was killed from outside or lost, and of one that crashed."""
MOST_BLAME = 12
"""Three crashes; a job with more fails. One with any blame is judged alone."""
LEASE_MS = 60_000
PRIORITY = {"http": 2, "dicom": 1, "watch": 0}
BACKFILL = -1
"""Priority of pictures that another engine judges again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process judges.

    Attributes:
        job: Its number.
        sha256: Content.
        name: Name of its first arrival.
        attempt: Number of this attempt, from 1; the fencing token of its result.
        owner: This process.
        blame: See :data:`MOST_BLAME`.
    """

    job: int
    sha256: str
    name: str
    attempt: int
    owner: str
    blame: int = 0


def queue(connection: Connection, sha256: str, name: str, engine: int, priority: int) -> bool:
    """Make sure that a job exists, with at least this priority; return whether it is done."""
    job = t.job
    row = connection.execute(
        select(job.c.id, job.c.priority, job.c.state).where(
            job.c.sha256 == sha256, job.c.engine_id == engine
        )
    ).first()
    if row is None:
        connection.execute(
            insert(job).values(
                sha256=sha256, engine_id=engine, name=name, state="waiting",
                priority=priority, created_ms=now_ms(),
            )
        )  # fmt: skip
    elif row.state == "cancelled":
        connection.execute(
            update(job)
            .where(job.c.id == row.id)
            .values(state="waiting", blame=0, error=None, name=name, priority=priority)
        )
    elif row.priority < priority:
        connection.execute(update(job).where(job.c.id == row.id).values(priority=priority))
    return row is not None and row.state == "done"


def queue_all(connection: Connection, engine: int) -> None:
    """Queue all pictures for the first engine: those that were received before any was opened."""
    arrival, source = t.arrival.c, t.arrival.c.source
    priority = case(*((source == name, value) for name, value in PRIORITY.items()), else_=0)
    pictures = (
        select(
            arrival.sha256, literal(engine), func.min(arrival.name), literal("waiting"),
            func.max(priority), literal(0), literal(now_ms()),
        )
        .where(arrival.deleted_ms.is_(None))
        .group_by(arrival.sha256)
    )  # fmt: skip
    columns = ["sha256", "engine_id", "name", "state", "priority", "attempt", "created_ms"]
    connection.execute(insert(t.job).from_select(columns, pictures))


def claim(connection: Connection, engine: int, owner: str, count: int) -> list[Claim]:
    """Take up to ``count`` jobs of an engine: the most urgent ones, and always the oldest.

    The oldest is taken in any case, so that no job waits for ever. A job with blame is taken
    alone, when it is the oldest or no other job waits. On PostgreSQL, jobs of a process that has
    not renewed its lease are taken too.
    """
    job, now = t.job, now_ms()
    free = and_(job.c.engine_id == engine, job.c.state == "waiting")
    if connection.dialect.name == "postgresql":
        expired = and_(job.c.engine_id == engine, job.c.state == "taken", job.c.lease_ms < now)
        free = or_(free, expired)
    columns = (job.c.id, job.c.sha256, job.c.name, job.c.attempt, job.c.blame, job.c.state)
    ordered = select(*columns).where(free).with_for_update(skip_locked=True)
    oldest = connection.execute(ordered.order_by(job.c.id).limit(1)).all()
    if not oldest:
        return []
    rows = oldest
    if not _blame(oldest[0]):
        urgent = ordered.where(job.c.blame == 0, job.c.state == "waiting")
        urgent = urgent.order_by(job.c.priority.desc(), job.c.id).limit(count)
        rows = list({row.id: row for row in [*oldest, *connection.execute(urgent)]}.values())
        rows = rows[:count]
    connection.execute(
        update(job)
        .where(job.c.id.in_([row.id for row in rows]))
        .values(
            state="taken", owner=owner, lease_ms=now + LEASE_MS, attempt=job.c.attempt + 1,
            blame=case((job.c.state == "taken", job.c.blame + KILLED), else_=job.c.blame),
        )
    )  # fmt: skip
    if is_active(connection, engine):
        set_state(connection, [row.sha256 for row in rows], "waiting", "reading")
    return [
        Claim(row.id, row.sha256, row.name, row.attempt + 1, owner, _blame(row)) for row in rows
    ]


def _blame(row: Any) -> int:
    """Blame of a job; the lease of a taken one has expired."""
    return int(row.blame) + (KILLED if row.state == "taken" else 0)


def renew(connection: Connection, owner: str) -> None:
    """Renew the lease of all jobs of a process."""
    job = t.job
    connection.execute(
        update(job)
        .where(job.c.owner == owner, job.c.state == "taken")
        .values(lease_ms=now_ms() + LEASE_MS)
    )


def give_back(connection: Connection, claimed: Claim, error: str, blame: int = 0) -> None:
    """Return a job that could not be judged.

    Args:
        connection: Inside a write operation.
        claimed: The job.
        error: Why.
        blame: Of its own content; 0 for a fault of disk, database or device.
    """
    values: Json = {"state": "waiting", "owner": None, "lease_ms": None, "error": error}
    values["blame"] = t.job.c.blame + blame
    engine = select(t.job.c.engine_id).where(t.job.c.id == claimed.job)
    returned = connection.execute(update(t.job).where(is_owned(claimed)).values(**values)).rowcount
    if returned and is_active(connection, connection.scalar(engine)):
        set_state(connection, [claimed.sha256], "reading", "waiting")


def recover(connection: Connection, blame: int, owner: str | None = None) -> int:
    """Free the jobs of the process before, at the start of its successor; return their number.

    Args:
        connection: Inside a write operation.
        blame: :data:`CRASHED` if the process crashed, else :data:`KILLED`.
        owner: Name that both have; None for the only process, which frees all jobs.
    """
    taken = t.job.c.state == "taken"
    if owner is not None:
        taken = and_(taken, t.job.c.owner == owner)
    is_shown = t.job.c.engine_id.in_(select(t.engine.c.id).where(t.engine.c.state == "active"))
    hashes = list(connection.scalars(select(t.job.c.sha256).where(taken, is_shown)))
    freed = connection.execute(
        update(t.job)
        .where(taken)
        .values(state="waiting", owner=None, lease_ms=None, blame=t.job.c.blame + blame)
    ).rowcount
    set_state(connection, hashes, "reading", "waiting")
    return freed


def is_owned(claimed: Claim) -> Any:
    """Condition on a job: this attempt still owns it."""
    job = t.job.c
    return and_(
        job.id == claimed.job, job.owner == claimed.owner, job.attempt == claimed.attempt,
        job.state == "taken",
    )  # fmt: skip


def waiting(connection: Connection, engine: int) -> int:
    """Number of jobs of an engine that wait."""
    return int(
        connection.scalar(
            select(func.count()).where(t.job.c.engine_id == engine, t.job.c.state == "waiting")
        )
        or 0
    )
