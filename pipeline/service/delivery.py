"""Transactions on the outbox: claim objects to send, and record the outcome of each attempt."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from . import outbox, worklist
from . import tables as t
from .database import now_ms
from .settings import ServiceConfig

LEASE_MS = 900_000
"""Time after which another process takes over the objects of an ended process."""
_REPORTS = 10
"""Shortest wait for a storage commitment report, as a multiple of the first pause."""
_OPEN = ("waiting", "sending", "committing")


@dataclass(frozen=True, slots=True)
class Batch:
    """Objects of one study for one peer.

    Attributes:
        peer: Row of table ``peer``.
        unsent: Rows of table ``outbox`` to send.
        unconfirmed: Rows that the peer has received but not confirmed.
    """

    peer: Row[Any]
    unsent: Sequence[Row[Any]]
    unconfirmed: Sequence[Row[Any]]


def recover(connection: Connection) -> None:
    """Queue the objects again that were being sent when the only process ended."""
    row = t.outbox.c
    connection.execute(
        update(t.outbox).where(row.state == "sending").values(state="waiting", next_ms=now_ms())
    )


def is_due(connection: Connection) -> bool:
    """Whether an object is due."""
    row = t.outbox.c
    due = select(row.id).where(row.state.in_(_OPEN), row.next_ms <= now_ms())
    return connection.scalar(due.limit(1)) is not None


def claim(connection: Connection, busy: Collection[int]) -> list[Batch]:
    """Claim due objects: for each peer, the study that has waited longest.

    Args:
        connection: Inside a write operation.
        busy: Peers to skip.
    """
    row, now = t.outbox.c, now_ms()
    due = and_(row.state.in_(_OPEN), row.next_ms <= now)
    batches = []
    peers = connection.execute(select(t.peer).where(t.peer.c.send, t.peer.c.id.not_in(list(busy))))
    for peer in peers.all():
        own = and_(due, row.peer_id == peer.id)
        study = connection.scalar(
            select(row.study_id).where(own).order_by(row.next_ms, row.id).limit(1)
        )
        if study is None:
            continue
        rows = connection.execute(
            select(t.outbox)
            .where(own, row.study_id == study)
            .order_by(row.id)
            .with_for_update(skip_locked=True)
        ).all()
        unsent = [one for one in rows if one.state != "committing"]
        unconfirmed = [one for one in rows if one.state == "committing"]
        for group, state in ((unsent, "sending"), (unconfirmed, "committing")):
            connection.execute(
                update(t.outbox)
                .where(row.id.in_([one.id for one in group]))
                .values(state=state, next_ms=now + LEASE_MS, tries=row.tries + 1)
            )
        if rows:
            batches.append(Batch(peer, unsent, unconfirmed))
    return batches


def sent(connection: Connection, number: int, note: str | None, unconfirmed: bool) -> list[str]:
    """Record that a peer has received an object.

    Args:
        connection: Inside a write operation.
        number: Row of the outbox.
        note: Remark of the peer; None without one.
        unconfirmed: Whether storage commitment will be requested.

    Returns:
        SHA-256 of contents to delete.
    """
    state = "committing" if unconfirmed else "sent"
    _set(connection, number, state=state, error=note, next_ms=now_ms(), tries=0)
    return _release(connection, [number]) if state == "sent" else []


def failed(connection: Connection, number: int, error: str) -> None:
    """Record that a peer permanently refuses an object."""
    _set(connection, number, state="failed", error=error)


def postpone(
    connection: Connection, numbers: Sequence[int], error: str | None, config: ServiceConfig
) -> None:
    """Try objects again later; after :attr:`.settings.ServiceConfig.retry_h` they need attention.

    Args:
        connection: Inside a write operation.
        numbers: Rows of the outbox; completed rows are not changed.
        error: Reason of the failure.
        config: Pauses.
    """
    now, row = now_ms(), t.outbox.c
    rows = connection.execute(
        select(row.id, row.state, row.tries, row.created_ms).where(
            row.id.in_(numbers), row.state.in_(_OPEN)
        )
    ).all()
    for one in rows:
        pause = pause_s(one.tries, config)
        state = "waiting"
        if one.state == "committing":  # a report may take hours
            state, pause = "committing", max(pause, _REPORTS * config.first_retry_s)
        if now - one.created_ms >= config.retry_h * 3_600_000:
            state = "attention"
        _set(connection, one.id, state=state, error=error, next_ms=now + int(1000 * pause))


def pause_s(tries: int, config: ServiceConfig) -> float:
    """Seconds until the next attempt: doubled each time, with jitter.

    Args:
        tries: Number of earlier failures.
        config: First and longest pause.
    """
    longest = min(config.most_retry_s, config.first_retry_s * 2.0 ** min(tries, 30))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311


def retry(connection: Connection, which: Any) -> int:
    """Reset the attempts of objects and send them now; return their number."""
    row, now = t.outbox.c, now_ms()
    numbers = list(connection.scalars(select(row.id).where(which, row.state != "sent")))
    for number in numbers:
        _set(connection, number, state="waiting", tries=0, next_ms=now, created_ms=now, error=None)
    return len(numbers)


def retry_peer(connection: Connection, peer: int) -> None:
    """Send all waiting objects of a peer now, because it responds again."""
    row = t.outbox.c
    connection.execute(
        update(t.outbox)
        .where(row.peer_id == peer, row.state.in_(("waiting", "committing")))
        .values(next_ms=now_ms())
    )


def add_study_event(connection: Connection, study: int) -> None:
    """Add an event for the changed objects of a study.

    One event for all objects: their number would reveal the answer to blind readers.
    """
    worklist.add_event(connection, "outbox", study, {})


def record_request(connection: Connection, numbers: Sequence[int], transaction_uid: str) -> None:
    """Record the transaction UID of a storage commitment request."""
    row = t.outbox.c
    connection.execute(
        update(t.outbox).where(row.id.in_(numbers)).values(transaction_uid=transaction_uid)
    )


def record_report(
    connection: Connection, transaction_uid: str, stored: Collection[str],
    lost: dict[str, int], config: ServiceConfig,
) -> tuple[int, list[str]]:  # fmt: skip
    """Record a storage commitment report.

    Args:
        connection: Inside a write operation.
        transaction_uid: Transaction UID of the request.
        stored: UIDs of the objects that the peer has stored.
        lost: Failure reason by UID of the others; they are sent again.
        config: Pauses.

    Returns:
        Number of objects in the request, and SHA-256 of contents to delete.
    """
    row = t.outbox.c
    rows = connection.execute(
        select(t.outbox).where(
            row.transaction_uid == transaction_uid, row.state == "committing"
        )
    ).all()  # fmt: skip
    done = [one.id for one in rows if one.object_uid in stored]
    for number in done:
        _set(connection, number, state="sent", committed_ms=now_ms())
    for one in rows:
        if one.object_uid in lost and one.object_uid not in stored:
            _set(connection, one.id, state="waiting")
            error = f"the receiver has not stored it (0x{lost[one.object_uid]:04X})"
            postpone(connection, [one.id], error, config)
    for study in {one.study_id for one in rows}:
        add_study_event(connection, study)
    return len(rows), _release(connection, done)


def _release(connection: Connection, numbers: Sequence[int]) -> list[str]:
    row = t.outbox.c
    hashes = connection.scalars(select(row.sha256).where(row.id.in_(numbers)).distinct())
    return outbox.delete_unused(connection, list(hashes))


def _set(connection: Connection, number: int, **values: Any) -> None:
    connection.execute(update(t.outbox).where(t.outbox.c.id == number).values(**values))
