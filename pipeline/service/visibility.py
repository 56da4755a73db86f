"""What a blind reader may see: nothing of fxpipe's answer before he has stored a review.

A picture is visible to a blind reader once he has reviewed it, also if he withdrew the review.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, select

from . import tables as t
from .accounts import Principal


def visible(principal: Principal) -> list[ColumnElement[bool]]:
    """Conditions on the table of arrivals: those whose answers a principal may see."""
    return [t.arrival.c.sha256.in_(_reviewed(principal))] if principal.blind else []


def visible_among(
    connection: Connection, principal: Principal, hashes: Collection[str]
) -> set[str]:
    """Those of the files whose answers a principal may see."""
    if not principal.blind:
        return set(hashes)
    own = _reviewed(principal).where(t.result.c.sha256.in_(hashes))
    return set(connection.scalars(own))


def _reviewed(principal: Principal) -> Select[Any]:
    """The files that a reader has reviewed."""
    return (
        select(t.result.c.sha256)
        .join(t.review, t.review.c.result_id == t.result.c.id)
        .where(t.review.c.reader_id == principal.user)
    )
