"""Transactions on pictures, jobs and results.

Every function takes a connection inside a write operation (:meth:`.database.Database.submit`), or
inside a read. A picture that was received has a job for the active engine, and a job is finished
by exactly one of the attempts to judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Table,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from ..errors import FxpipeError
from ..outcome import Status
from ..report.page_row import URGENCY
from ..studies import pseudonym
from . import audit_log, outbox, verdicts
from . import tables as t
from .blobs import Content
from .database import now_ms, serialise

KILLED, CRASHED = 1, 4
"""Blame of the jobs of a process that was killed from outside, and of one that crashed."""
MOST_BLAME = 12
"""Three crashes; a job with more fails. One with any blame is judged alone."""
LEASE_MS = 60_000
WAITING_RANK = len(URGENCY)
"""Rank of a picture without a result: below all answers."""
PRIORITY = {"http": 2, "dicom": 1, "watch": 0}
BACKFILL = -1
"""Priority of pictures that another engine judges again."""

Json = dict[str, Any]


class KeyConflictError(FxpipeError):
    """An idempotency key was used for other content."""


class ContentGoneError(FxpipeError):
    """The content was deleted while it was received again; the sender must repeat it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that was received and stored.

    Attributes:
        content: Digest and size.
        name: File name of the sender, for people.
        source: ``http``, ``dicom`` or ``watch``.
        sender: User, token, AE title or folder that sent it.
        key: Idempotency key of the sender; None without one.
    """

    content: Content
    name: str
    source: str
    sender: str
    key: str | None = None


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


@dataclass(frozen=True, slots=True)
class NewResult:
    """The outcome of one picture, to be stored.

    Attributes:
        frame: Frame of the file, or -1.
        status: See :class:`pipeline.outcome.Status`.
        answer: Verdict, or status without one.
        region: Of the leading finding; None without one.
        probability: Of the leading finding.
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


def receive(
    connection: Connection, arrival: Arrival, is_stored: Callable[[str], bool]
) -> tuple[int, bool]:
    """Register a file whose content is durable, and queue it for the active engine.

    Args:
        connection: Inside a write operation.
        arrival: The file.
        is_stored: Whether the content of a digest exists.

    Returns:
        Number of the arrival, and whether it is new: False if its sender repeats a key.

    Raises:
        KeyConflictError: The key was used for other content.
        ContentGoneError: The content was deleted in the meantime.
    """
    known = None if arrival.key is None else _known(connection, arrival)
    if known is not None:
        return known, False
    sha256, now = arrival.content.sha256, now_ms()
    row = connection.execute(
        select(t.blob.c.deleted_ms).where(t.blob.c.sha256 == sha256).with_for_update()
    ).first()
    if row is None:
        serialise(connection)
    if not is_stored(sha256):
        raise ContentGoneError("the file was deleted while it was received", "send it again")
    if row is None:
        connection.execute(
            insert(t.blob).values(sha256=sha256, size=arrival.content.size, created_ms=now)
        )
    elif row.deleted_ms is not None:
        connection.execute(update(t.blob).where(t.blob.c.sha256 == sha256).values(deleted_ms=None))
    number = _insert(
        connection, t.arrival,
            sha256=sha256, name=arrival.name, source=arrival.source, sender=arrival.sender,
            key=arrival.key, received_ms=now, state="waiting", rank=WAITING_RANK,
    )  # fmt: skip
    for engine in judging_engines(connection):
        is_active = engine.state == "active"
        priority = PRIORITY[arrival.source] if is_active else BACKFILL
        if _queue(connection, arrival, engine.id, priority) and is_active:
            update_arrivals(connection, sha256, engine.id)
    add_event(connection, "received", number, {})
    audit_log.append(
        connection, arrival.sender, "receive", f"picture/{number}",
        {"sha256": sha256, "source": arrival.source},
    )  # fmt: skip
    return number, True


def _known(connection: Connection, arrival: Arrival) -> int | None:
    row = connection.execute(
        select(t.arrival.c.id, t.arrival.c.sha256).where(
            t.arrival.c.sender == arrival.sender, t.arrival.c.key == arrival.key
        )
    ).first()
    if row is None:
        return None
    if row.sha256 != arrival.content.sha256:
        raise KeyConflictError("this Idempotency-Key was used for other content")
    return int(row.id)


def _queue(connection: Connection, arrival: Arrival, engine: int, priority: int) -> bool:
    """Make sure that a job exists, with at least this priority; return whether it is done."""
    job, sha256 = t.job, arrival.content.sha256
    row = connection.execute(
        select(job.c.id, job.c.priority, job.c.state).where(
            job.c.sha256 == sha256, job.c.engine_id == engine
        )
    ).first()
    if row is None:
        connection.execute(
            insert(job).values(
                sha256=sha256, engine_id=engine, name=arrival.name, state="waiting",
                priority=priority, created_ms=now_ms(),
            )
        )  # fmt: skip
    elif row.state == "cancelled":
        connection.execute(
            update(job)
            .where(job.c.id == row.id)
            .values(state="waiting", blame=0, error=None, name=arrival.name, priority=priority)
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
            blame=case((job.c.state == "taken", job.c.blame + CRASHED), else_=job.c.blame),
        )
    )  # fmt: skip
    if is_active(connection, engine):
        _set_state(connection, [row.sha256 for row in rows], "waiting", "reading")
    return [
        Claim(row.id, row.sha256, row.name, row.attempt + 1, owner, _blame(row)) for row in rows
    ]


def _blame(row: Any) -> int:
    """Blame of a job; the lease of a taken one has expired."""
    return int(row.blame) + (CRASHED if row.state == "taken" else 0)


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
    returned = connection.execute(update(t.job).where(_is(claimed)).values(**values)).rowcount
    if returned and is_active(connection, connection.scalar(engine)):
        _set_state(connection, [claimed.sha256], "reading", "waiting")


def recover(connection: Connection, blame: int) -> int:
    """Free all taken jobs at the start of the only process; return their number.

    Args:
        connection: Inside a write operation.
        blame: :data:`CRASHED` if its predecessor crashed, else :data:`KILLED`.
    """
    taken = t.job.c.state == "taken"
    hashes = list(connection.scalars(select(t.job.c.sha256).where(taken)))
    connection.execute(
        update(t.job)
        .where(taken)
        .values(state="waiting", owner=None, lease_ms=None, blame=t.job.c.blame + blame)
    )
    _set_state(connection, hashes, "reading", "waiting")
    return len(hashes)


def finish(connection: Connection, claimed: Claim, results: Sequence[NewResult],
           identity: Mapping[str, str] | None) -> list[int]:  # fmt: skip
    """Store the results of a job, unless another attempt owns it by now.

    Args:
        connection: Inside a write operation.
        claimed: The job.
        results: One for each picture of the file.
        identity: Patient and study of the file, from its DICOM header.

    Returns:
        Numbers of the results; none if they were discarded.
    """
    now = now_ms()
    done = connection.execute(
        update(t.job).where(_is(claimed)).values(state="done", finished_ms=now, error=None)
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
    return _insert(connection, result, **place, frame=new.frame, **values)


def _is(claimed: Claim) -> Any:
    job = t.job.c
    return and_(
        job.id == claimed.job, job.owner == claimed.owner, job.attempt == claimed.attempt,
        job.state == "taken",
    )  # fmt: skip


def join_study(connection: Connection, sha256: str, uid: str, identity: Mapping[str, str]) -> None:
    """Add the arrivals of a file to its study, which is not stable any more.

    Args:
        connection: Inside a write operation.
        sha256: The file.
        uid: Its StudyInstanceUID.
        identity: Values by DICOM keyword, for a study that is new.
    """
    key, now = pseudonym(uid), now_ms()
    number = connection.scalar(select(t.study.c.id).where(t.study.c.key == key))
    if number is None:
        number = _insert(
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
    """A document or a CT slice does not belong to the pictures of its study."""
    connection.execute(update(t.arrival).where(t.arrival.c.sha256 == sha256).values(study_id=None))


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


def refresh_study(connection: Connection, number: int) -> None:
    """Count the pictures of a study again; one without pictures loses its UID and identity."""
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


def _set_state(connection: Connection, hashes: Sequence[str], before: str, after: str) -> None:
    arrival = t.arrival.c
    for start in range(0, len(hashes), 500):
        part = hashes[start : start + 500]
        connection.execute(
            update(t.arrival)
            .where(arrival.sha256.in_(part), arrival.state == before)
            .values(state=after)
        )


def remove(connection: Connection, number: int, actor: str) -> list[str]:
    """Delete an arrival and, unless another one has it, the results of its content.

    The content itself is deleted afterwards by :func:`unlink`, when this is durable.

    Args:
        connection: Inside a write operation.
        number: The arrival.
        actor: Who deletes it.

    Returns:
        SHA-256 of the content that is not needed any more.

    Raises:
        HeldError: The content is under a legal hold.
    """
    arrival = t.arrival.c
    row = connection.execute(
        select(arrival.sha256, arrival.study_id).where(
            arrival.id == number, arrival.deleted_ms.is_(None)
        )
    ).first()
    if row is None:
        return []
    sha256 = str(row.sha256)
    blob = t.blob.c.sha256 == sha256
    if connection.scalar(select(t.blob.c.held).where(blob).with_for_update()):
        raise HeldError("the picture is under a legal hold")
    now = now_ms()
    connection.execute(
        update(t.arrival)
        .where(arrival.id == number)
        .values(deleted_ms=now, state="deleted", name="", key=None, study_id=None)
    )
    if row.study_id is not None:
        refresh_study(connection, row.study_id)
    others = connection.scalar(
        select(func.count()).where(arrival.sha256 == sha256, arrival.deleted_ms.is_(None))
    )
    gone: list[str] = []
    if not others:
        results = select(t.result.c.id).where(t.result.c.sha256 == sha256)
        connection.execute(delete(t.detail).where(t.detail.c.result_id.in_(results)))
        connection.execute(
            update(t.review).where(t.review.c.result_id.in_(results)).values(comment="", marks=[])
        )
        connection.execute(
            update(t.job)
            .where(t.job.c.sha256 == sha256)
            .values(state="cancelled", owner=None, name="")
        )
        connection.execute(delete(t.instance).where(t.instance.c.sha256 == sha256))
        connection.execute(update(t.blob).where(blob).values(deleted_ms=now))
        gone = [sha256, *outbox.forget(connection, t.outbox.c.source == sha256)]
    add_event(connection, "deleted", number, {})
    audit_log.append(connection, actor, "delete", f"picture/{number}", {"sha256": sha256})
    return gone


def unlink(connection: Connection, sha256: str, remove_file: Callable[[str], None]) -> None:
    """Delete the file of deleted or unknown content, unless it was received in the meantime.

    Args:
        connection: Inside a write operation.
        sha256: The content.
        remove_file: Deletes the file of a digest.
    """
    query = select(t.blob.c.deleted_ms).where(t.blob.c.sha256 == sha256).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        serialise(connection)  # there is no row to lock: see `receive`
        row = connection.execute(query).first()
    if row is None or row.deleted_ms is not None:
        remove_file(sha256)


class HeldError(FxpipeError):
    """The picture is under a legal hold."""


def _insert(connection: Connection, table: Table, **values: Any) -> int:
    """Insert a row, and return its number."""
    key = connection.execute(insert(table).values(**values)).inserted_primary_key
    assert key is not None  # noqa: S101  (the tables have an id)
    return int(key[0])


def active_engine(connection: Connection) -> Row[Any] | None:
    """The engine whose results are shown; None before the first start."""
    return connection.execute(select(t.engine).where(t.engine.c.state == "active")).first()


def is_active(connection: Connection, engine: int | None) -> bool:
    """Whether this is the active engine."""
    active = active_engine(connection)
    return active is not None and active.id == engine


def judging_engines(connection: Connection) -> Sequence[Row[Any]]:
    """The active engine and all candidates, which judge every new picture."""
    return connection.execute(
        select(t.engine).where(t.engine.c.state.in_(("active", "candidate")))
    ).all()


def add_event(connection: Connection, kind: str, subject: int | None, data: Json) -> None:
    """Add a change that open pages should learn of; numbers become visible in their order."""
    serialise(connection)
    connection.execute(
        insert(t.event).values(kind=kind, subject=subject, data=data, at_ms=now_ms())
    )


def waiting(connection: Connection, engine: int) -> int:
    """Number of jobs of an engine that wait."""
    return int(
        connection.scalar(
            select(func.count()).where(t.job.c.engine_id == engine, t.job.c.state == "waiting")
        )
        or 0
    )
