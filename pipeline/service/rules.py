"""Retention rules: selection of the pictures."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, select

from . import tables as t
from .database import now_ms

DAY_MS = 86_400_000


def expired(days: int, state: str | None, now: int | None = None) -> list[ColumnElement[Any]]:
    """Conditions on arrivals: judged, older than a number of days, and not under a legal hold.

    Args:
        days: Age above which pictures are deleted.
        state: Required state; None for all.
        now: Milliseconds since 1970; None for the current time.
    """
    arrival = t.arrival.c
    held = select(t.blob.c.sha256).where(t.blob.c.held)
    conditions: list[ColumnElement[Any]] = [
        arrival.deleted_ms.is_(None),
        arrival.state.not_in(("waiting", "reading")),
        arrival.received_ms < (now_ms() if now is None else now) - days * DAY_MS,
        arrival.sha256.not_in(held),
    ]
    return conditions if state is None else [*conditions, arrival.state == state]
