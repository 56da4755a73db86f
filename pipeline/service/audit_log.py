"""The audit log: actions with actor and time, in a hash chain that makes changes detectable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select

from . import tables
from .database import now_ms, serialise

_FIRST = "0" * 64


def append(
    connection: Connection, actor: str, action: str, subject: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Add an entry, in the transaction of the action.

    Args:
        connection: Inside a write operation.
        actor: Name of the user or token.
        action: Such as ``review``.
        subject: Object of the action, such as ``result/17``; no patient identifiers.
        detail: Further JSON values.
    """
    serialise(connection)
    newest = select(tables.audit.c.hash).order_by(tables.audit.c.id.desc()).limit(1)
    last = connection.scalar(newest)
    values = {
        "at_ms": now_ms(), "actor": actor, "action": action, "subject": subject,
        "detail": dict(detail or {}), "previous": last or _FIRST,
    }  # fmt: skip
    connection.execute(insert(tables.audit).values(**values, hash=_digest(values)))


def first_fault(connection: Connection) -> str | None:
    """The first entry that was changed, inserted or removed; None if the chain is complete.

    Entries removed from the end are not detected; compare the last hash with a backup.
    """
    previous = _FIRST
    entries = select(tables.audit).order_by(tables.audit.c.id)
    for row in connection.execute(entries, execution_options={"yield_per": 1000}).mappings():
        values = {name: row[name] for name in _HASHED}
        if row["previous"] != previous:
            return f"entry {row['id']} does not follow the previous entry"
        if row["hash"] != _digest(values):
            return f"entry {row['id']} was changed"
        previous = row["hash"]
    return None


def last_entry(connection: Connection) -> tuple[int, str]:
    """Number of entries, and the hash of the last entry."""
    count = connection.scalar(select(func.count()).select_from(tables.audit))
    newest = select(tables.audit.c.hash).order_by(tables.audit.c.id.desc()).limit(1)
    return int(count or 0), str(connection.scalar(newest) or _FIRST)


_HASHED = ("at_ms", "actor", "action", "subject", "detail", "previous")


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps({name: values[name] for name in _HASHED}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
