"""Transactions on received files. Each received file gets a job for every engine that judges.

Every function takes a connection inside a write operation (:meth:`.database.Database.submit`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import (
    Connection,
    delete,
    func,
    select,
    update,
)

from ..errors import FxpipeError
from . import audit_log, contents, outbox
from . import tables as t
from .blobs import Content
from .database import insert_row, now_ms, serialise
from .engine_state import judging_engines
from .job_queue import BACKFILL, PRIORITY, queue
from .worklist import WAITING_RANK, add_event, refresh_study, update_arrivals


class KeyConflictError(FxpipeError):
    """An idempotency key was used for other content."""


class HeldError(FxpipeError):
    """The picture is under a legal hold."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that was received and stored.

    Attributes:
        content: Digest and size.
        name: File name given by the sender, for display.
        source: ``http``, ``dicom`` or ``watch``.
        sender: User, token, AE title or folder that sent it.
        key: Idempotency key of the sender; None without one.
    """

    content: Content
    name: str
    source: str
    sender: str
    key: str | None = None


def receive(
    connection: Connection, arrival: Arrival, is_stored: Callable[[str], bool]
) -> tuple[int, bool]:
    """Register a durably stored file, and queue it for the engines that judge.

    Args:
        connection: Inside a write operation.
        arrival: The file.
        is_stored: Returns whether the content of a digest exists.

    Returns:
        Number of the arrival, and whether it is new: False if the sender repeated a key.

    Raises:
        KeyConflictError: The key was used for other content.
        ContentGoneError: The content was deleted in the meantime.
    """
    known = None if arrival.key is None else _known(connection, arrival)
    if known is not None:
        return known, False
    sha256, now = arrival.content.sha256, now_ms()
    contents.mark_used(connection, arrival.content, is_stored)
    number = insert_row(
        connection, t.arrival,
            sha256=sha256, name=arrival.name, source=arrival.source, sender=arrival.sender,
            key=arrival.key, received_ms=now, state="waiting", rank=WAITING_RANK,
    )  # fmt: skip
    for engine in judging_engines(connection):
        is_active = engine.state == "active"
        priority = PRIORITY[arrival.source] if is_active else BACKFILL
        if queue(connection, sha256, arrival.name, engine.id, priority) and is_active:
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


def remove(connection: Connection, number: int, actor: str) -> list[str]:
    """Delete an arrival, and the results of its content unless another arrival uses it.

    Once the transaction is durable, :func:`unlink` deletes the content itself.

    Args:
        connection: Inside a write operation.
        number: The arrival.
        actor: Name of the user, token or rule that deletes it.

    Returns:
        SHA-256 of the content that is no longer needed.

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
        gone = [sha256, *outbox.delete_rows(connection, t.outbox.c.source == sha256)]
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
        serialise(connection)  # there is no row to lock: see `contents.mark_used`
        row = connection.execute(query).first()
    if row is None or row.deleted_ms is not None:
        remove_file(sha256)
