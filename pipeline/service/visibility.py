"""Visibility for blind readers: fxpipe's answer is hidden until they have stored a review.

The answer stays visible if the reader withdraws the review.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, select

from . import tables as t
from .accounts import Principal


def visible(principal: Principal) -> list[ColumnElement[bool]]:
    """Condition on table ``arrival``: pictures with answers that a principal may see."""
    return [t.arrival.c.sha256.in_(_reviewed(principal))] if principal.blind else []


def visible_among(
    connection: Connection, principal: Principal, hashes: Collection[str]
) -> set[str]:
    """The subset of files with answers that a principal may see."""
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
