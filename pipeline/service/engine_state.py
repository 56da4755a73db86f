"""State of the engines: active engine and candidates.

Every function takes a connection inside a write operation or inside a read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    select,
)

from . import tables as t


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
