"""Transactions on reviews: verdicts of readers on results.

Rows are only appended: a later review of a reader supersedes the earlier one, and a withdrawal is
also a review.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from ..errors import FxpipeError
from . import audit_log, verdicts, worklist
from . import tables as t
from .accounts import Principal
from .database import now_ms
from .visibility import visible_among

AGREE = "agree"
WITHDRAW_MS = 600_000
"""Time in which a reader can withdraw a review."""
_AGREED = {"positive": verdicts.FRACTURE, "negative": verdicts.NONE}


class ReviewError(FxpipeError):
    """The review cannot be stored or withdrawn now."""


@dataclass(frozen=True, slots=True)
class NewReview:
    """A review to be stored.

    Attributes:
        verdict: One of :data:`.verdicts.VERDICTS`, or ``agree``.
        region: Region according to the reader; None if not given.
        marks: Places of fractures, ``x`` and ``y`` in source px.
        comment: Text.
    """

    verdict: str
    region: str | None
    marks: Sequence[dict[str, float]]
    comment: str


def add(connection: Connection, result: int, new: NewReview, principal: Principal) -> int:
    """Store a review; return its number.

    Args:
        connection: Inside a write operation.
        result: Number of the result.
        new: The review.
        principal: The reader, a user.

    Raises:
        LookupError: The result does not exist.
        ReviewError: A blind reader agrees with a hidden answer.
    """
    row = find_result(connection, result)
    if row is None:
        raise LookupError(result)
    blind = row.sha256 not in visible_among(connection, principal, [row.sha256])
    verdict = new.verdict
    if verdict == AGREE:
        if blind:
            raise ReviewError("the answer is hidden, expected a verdict other than agree")
        verdict = _AGREED.get(row.answer, verdicts.UNSURE)
    values = {
        "blind": blind, "verdict": verdict, "region": new.region, "marks": list(new.marks),
        "comment": new.comment,
    }  # fmt: skip
    return _append(connection, row, principal, values, "review")


def withdraw(connection: Connection, number: int, principal: Principal) -> None:
    """Withdraw the latest review of a reader on a picture.

    Raises:
        LookupError: The reader has no such review, or its picture was deleted.
        ReviewError: It is not the latest review, was withdrawn, or is too old.
    """
    review = t.review.c
    own = connection.execute(
        select(t.review).where(review.id == number, review.reader_id == principal.user)
    ).first()
    row = None if own is None else find_result(connection, own.result_id)
    if own is None or row is None:
        raise LookupError(number)
    if _latest(connection, row, principal) != number or own.verdict == verdicts.WITHDRAWN:
        raise ReviewError("it was superseded or withdrawn, expected the latest review")
    if now_ms() - own.created_ms > WITHDRAW_MS:
        raise ReviewError(f"expected a review of the last {WITHDRAW_MS // 60_000} minutes")
    values = {
        "blind": own.blind, "verdict": verdicts.WITHDRAWN, "region": None, "marks": [],
        "comment": "",
    }  # fmt: skip
    _append(connection, row, principal, values, "withdraw review")


def find_result(connection: Connection, number: int) -> Row[Any] | None:
    """A result of an existing picture; None if it does not exist."""
    result, arrival = t.result.c, t.arrival.c
    there = select(arrival.id).where(arrival.sha256 == result.sha256, arrival.deleted_ms.is_(None))
    query = select(t.result).where(result.id == number, there.exists())
    return connection.execute(query).first()


def query() -> Select[Any]:
    """Reviews with the name of the reader, and the file, answer and region of the result."""
    return (
        select(
            t.review, t.user.c.name.label("reader"), t.result.c.sha256, t.result.c.answer,
            t.result.c.region.label("found_region"),
        )
        .join(t.user, t.user.c.id == t.review.c.reader_id)
        .join(t.result, t.result.c.id == t.review.c.result_id)
    )  # fmt: skip


def _append(
    connection: Connection, result: Row[Any], principal: Principal, values: dict[str, Any],
    action: str,
) -> int:  # fmt: skip
    key = connection.execute(
        insert(t.review).values(
            result_id=result.id, reader_id=principal.user, created_ms=now_ms(),
            supersedes=_latest(connection, result, principal), **values,
        )
    ).inserted_primary_key  # fmt: skip
    assert key is not None  # noqa: S101
    arrival = t.arrival.c
    own = (arrival.sha256 == result.sha256, arrival.deleted_ms.is_(None))
    connection.execute(
        update(t.arrival).where(*own).values(review=verdicts.current(connection, result.sha256))
    )
    for number in list(connection.scalars(select(arrival.id).where(*own))):
        worklist.add_event(connection, "reviewed", number, {})
    audit_log.append(
        connection, principal.name, action, f"result/{result.id}", {"verdict": values["verdict"]}
    )
    return int(key[0])


def _latest(connection: Connection, result: Row[Any], principal: Principal) -> int | None:
    """The latest review of a reader on a picture, whichever engine judged it."""
    review = t.review.c
    number: int | None = connection.scalar(
        select(review.id)
        .join(t.result, t.result.c.id == review.result_id)
        .where(
            t.result.c.sha256 == result.sha256, t.result.c.frame == result.frame,
            review.reader_id == principal.user,
        )
        .order_by(review.id.desc())
        .limit(1)
    )  # fmt: skip
    return number
