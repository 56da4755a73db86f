"""Rows of the outbox, and the contents that they reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from . import contents
from . import tables as t
from .blobs import Content
from .database import now_ms

_CHUNK = 500
"""Contents of one query: databases limit its values."""


@dataclass(frozen=True, slots=True)
class NewObject:
    """A DICOM object whose content is stored.

    Attributes:
        uid: SOPInstanceUID.
        kind: ``report``, ``overlay`` or ``marks``.
        source: SHA-256 of the picture.
        content: Digest and size.
    """

    uid: str
    kind: str
    source: str
    content: Content


def add(
    connection: Connection, study: int, objects: Sequence[NewObject], peers: Iterable[int],
    is_stored: Callable[[str], bool],
) -> list[int]:  # fmt: skip
    """Queue objects for peers, except objects already queued for or sent to a peer.

    Args:
        connection: Inside a write operation.
        study: Number of the study.
        objects: Objects to send.
        peers: Numbers of the receivers.
        is_stored: Whether the content of a digest exists.

    Returns:
        Numbers of the new rows.

    Raises:
        ContentGoneError: A content was deleted in the meantime.
    """
    now, added = now_ms(), []
    outbox = t.outbox.c
    for peer in peers:
        known = set(
            connection.scalars(
                select(outbox.object_uid).where(outbox.peer_id == peer, outbox.study_id == study)
            )
        )
        for one in objects:
            if one.uid in known:
                continue
            known.add(one.uid)
            contents.mark_used(connection, one.content, is_stored)
            key = connection.execute(
                insert(t.outbox).values(
                    object_uid=one.uid, peer_id=peer, study_id=study, sha256=one.content.sha256,
                    source=one.source, kind=one.kind, state="waiting", next_ms=now,
                    created_ms=now,
                )
            ).inserted_primary_key  # fmt: skip
            assert key is not None  # noqa: S101
            added.append(int(key[0]))
    return added


def complete(connection: Connection, study: int, peers: Sequence[int]) -> set[str]:
    """UIDs of the objects of a study that are queued or sent for each of the given peers."""
    outbox = t.outbox.c
    return set(
        connection.scalars(
            select(outbox.object_uid)
            .where(outbox.study_id == study, outbox.peer_id.in_(peers))
            .group_by(outbox.object_uid)
            .having(func.count() == len(peers))
        )
    )


def delete_rows(connection: Connection, which: ColumnElement[bool]) -> list[str]:
    """Delete rows, and mark unreferenced contents as deleted.

    Returns:
        SHA-256 of these contents; the caller unlinks them.
    """
    hashes = set(connection.scalars(select(t.outbox.c.sha256).where(which)))
    connection.execute(delete(t.outbox).where(which))
    return delete_unused(connection, hashes)


def delete_unused(connection: Connection, hashes: Iterable[str]) -> list[str]:
    """Mark unreferenced contents as deleted; the caller unlinks the returned ones."""
    wanted, blob, free = sorted(set(hashes)), t.blob.c, []
    for start in range(0, len(wanted), _CHUNK):
        # Locked in one order, and before references are looked up: see `contents.mark_used`.
        rows = connection.scalars(
            select(blob.sha256)
            .where(blob.sha256.in_(wanted[start : start + _CHUNK]), blob.deleted_ms.is_(None))
            .order_by(blob.sha256)
            .with_for_update()
        ).all()
        unneeded = [sha256 for sha256 in rows if not is_needed(connection, sha256)]
        connection.execute(
            update(t.blob).where(blob.sha256.in_(unneeded)).values(deleted_ms=now_ms())
        )
        free += unneeded
    return free


def is_needed(connection: Connection, sha256: str) -> bool:
    """Whether content is a received picture, or an object not yet sent to a peer."""
    unsent: Any = select(t.outbox.c.id).where(
        t.outbox.c.sha256 == sha256, t.outbox.c.state != "sent"
    )
    received: Any = select(t.arrival.c.id).where(
        t.arrival.c.sha256 == sha256, t.arrival.c.deleted_ms.is_(None)
    )
    return any(connection.scalar(query.limit(1)) is not None for query in (unsent, received))
