"""Rows of table ``blob`` for contents that are stored as files."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, insert, select, update

from ..errors import FxpipeError
from . import tables as t
from .blobs import Content
from .database import now_ms, serialise


class ContentGoneError(FxpipeError):
    """Content was deleted after it was stored and before it was registered; store it again."""


def mark_used(connection: Connection, content: Content, is_stored: Callable[[str], bool]) -> None:
    """Mark content as used, so that its file is not deleted.

    Args:
        connection: Inside a write operation.
        content: Digest and size.
        is_stored: Whether the file of a digest exists.

    Raises:
        ContentGoneError: It does not.
    """
    blob = t.blob.c
    row = connection.execute(
        select(blob.deleted_ms).where(blob.sha256 == content.sha256).with_for_update()
    ).first()
    if row is None:
        serialise(connection)  # there is no row to lock: see `arrivals.unlink`
    if not is_stored(content.sha256):
        raise ContentGoneError("the file was deleted while it was received", "send it again")
    if row is None:
        connection.execute(
            insert(t.blob).values(sha256=content.sha256, size=content.size, created_ms=now_ms())
        )
    elif row.deleted_ms is not None:
        connection.execute(
            update(t.blob).where(blob.sha256 == content.sha256).values(deleted_ms=None)
        )
