"""DICOM nodes that were rejected, shown to administrators, who can allow them."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from . import tables as t
from . import worklist
from .database import now_ms

_MOST = 200


def record_rejected(connection: Connection, title: str, host: str) -> None:
    """Count a rejected association; beyond a maximum number, the oldest nodes are deleted.

    Args:
        connection: Inside a write operation.
        title: Calling AE title.
        host: Address.
    """
    caller, now = t.caller.c, now_ms()
    title = "".join(char for char in title if char.isprintable())[:16]
    own = (caller.title == title, caller.host == host[:64])
    known = connection.execute(
        update(t.caller).where(*own).values(last_ms=now, count=caller.count + 1)
    ).rowcount
    if known:
        return
    connection.execute(insert(t.caller).values(title=title, host=host[:64], last_ms=now, count=1))
    recent = select(caller.id).order_by(caller.last_ms.desc(), caller.id.desc()).limit(_MOST)
    kept = list(connection.scalars(recent))
    connection.execute(delete(t.caller).where(caller.id.not_in(kept)))
    worklist.add_event(connection, "peer", None, {})
