"""Transactions on jobs: a job is one content to be judged by one engine.

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
"""Value added to ``blame`` of the jobs in progress when their process was killed (or lost) or
crashed."""
MOST_BLAME = 12
"""Limit of ``blame``, three crashes: a job above it fails. Jobs above 0 are judged alone."""
LEASE_MS = 60_000
PRIORITY = {"http": 2, "dicom": 1, "watch": 0}
BACKFILL = -1
"""Priority of pictures that are judged again by another engine."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job claimed by this process.

    Attributes:
        job: Number of the job.
        sha256: Digest of the content.
        name: File name of the first arrival.
        attempt: Number of this attempt, from 1; the fencing token of its result.
        owner: Name of this process.
        blame: See :data:`MOST_BLAME`.
    """

    job: int
    sha256: str
    name: str
    attempt: int
    owner: str
    blame: int = 0


def queue(connection: Connection, sha256: str, name: str, engine: int, priority: int) -> bool:
    """Add a job, or raise the priority of an existing one; return whether it is done."""
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
    """Queue all pictures that were received before the first engine was opened."""
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
    """Claim up to ``count`` jobs of an engine: the oldest job, and those of the highest priority.

    The oldest job is always included, to prevent starvation. A job with ``blame`` above 0 is
    claimed alone, when it is the oldest or no other job is waiting. On PostgreSQL, jobs with an
    expired lease are claimed too.
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
    """The value of ``blame`` after a claim; a taken job has an expired lease."""
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
    """Return a job to the queue that could not be judged.

    Args:
        connection: Inside a write operation.
        claimed: The job.
        error: Reason.
        blame: Value to add if the content is the cause; 0 for errors of disk, database or device.
    """
    values: Json = {"state": "waiting", "owner": None, "lease_ms": None, "error": error}
    values["blame"] = t.job.c.blame + blame
    engine = select(t.job.c.engine_id).where(t.job.c.id == claimed.job)
    returned = connection.execute(update(t.job).where(is_owned(claimed)).values(**values)).rowcount
    if returned and is_active(connection, connection.scalar(engine)):
        set_state(connection, [claimed.sha256], "reading", "waiting")


def recover(connection: Connection, blame: int, owner: str | None = None) -> int:
    """Return the jobs of the previous process to the queue at a restart; return their number.

    Args:
        connection: Inside a write operation.
        blame: :data:`CRASHED` if the previous process crashed, else :data:`KILLED`.
        owner: Name of the previous process; None for the jobs of all processes.
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
    """Number of waiting jobs of an engine."""
    return int(
        connection.scalar(
            select(func.count()).where(t.job.c.engine_id == engine, t.job.c.state == "waiting")
        )
        or 0
    )
