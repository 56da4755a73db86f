"""The current verdict of the readers on the pictures of a file.

Verdicts belong to a picture, not to an engine: they remain after a promotion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, Row, select

from . import tables as t

FRACTURE, NONE, UNSURE, WRONG_REGION = "fracture", "none", "unsure", "wrong_region"
VERDICTS = (FRACTURE, WRONG_REGION, UNSURE, NONE)
"""Verdicts that a reader can store, the most severe first."""
WITHDRAWN, DISPUTED = "withdrawn", "disputed"


def latest(connection: Connection, hashes: Collection[str]) -> list[Row[Any]]:
    """The latest review of each reader on each picture, including withdrawals.

    Args:
        connection: Inside a read or a write operation.
        hashes: SHA-256 of the files.

    Returns:
        Columns of the review, and ``sha256`` and ``frame`` of its picture.
    """
    rows = connection.execute(
        select(t.review, t.result.c.sha256, t.result.c.frame)
        .join(t.result, t.result.c.id == t.review.c.result_id)
        .where(t.result.c.sha256.in_(hashes))
        .order_by(t.review.c.id)
    )
    return list({(row.sha256, row.frame, row.reader_id): row for row in rows}.values())


def current(connection: Connection, sha256: str) -> str | None:
    """The most severe verdict on the pictures of a file; ``disputed`` if readers disagree on one.

    Returns:
        None without verdicts, or if all were withdrawn.
    """
    by_frame: dict[int, set[str]] = defaultdict(set)
    for row in latest(connection, [sha256]):
        by_frame[row.frame].add(row.verdict)
    combined = {combine(found) for found in by_frame.values()}
    return next((word for word in (DISPUTED, *VERDICTS) if word in combined), None)


def combine(verdicts: Iterable[str]) -> str | None:
    """Combined verdict on one picture; ``disputed`` if readers disagree, None without verdicts."""
    different = set(verdicts) - {WITHDRAWN}
    return next(iter(different)) if len(different) == 1 else DISPUTED if different else None
