"""``/audit``: actions of users and programs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from sqlalchemy import select

from .. import tables as t
from ..accounts import Principal
from .problems import responses
from .security import allow, service_of

router = APIRouter(prefix="/audit", tags=["audit"])


class Entry(BaseModel):
    """An entry of the audit log.

    Attributes:
        id: Number of the entry.
        at: Milliseconds since 1970, UTC.
        actor: User, token or sender of the action.
        action: Kind of action.
        subject: Object of the action, such as ``result/17``.
        detail: Further values.
        hash: SHA-256 of the entry and of the previous hash.
    """

    id: int
    at: int
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    hash: str


class AuditPage(BaseModel):
    """Entries, newest first.

    Attributes:
        entries: Entries of this page.
        next: Cursor of the next page; null on the last one.
    """

    entries: list[Entry]
    next: int | None


@router.get("", response_model=AuditPage, responses=responses(401, 403, 422))
def list_entries(
    request: Request, _: Annotated[Principal, Depends(allow("auditor"))],
    after: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AuditPage:  # fmt: skip
    """Entries of the audit log."""
    query = select(t.audit).order_by(t.audit.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(t.audit.c.id < after)
    with service_of(request).database.read() as connection:
        rows = connection.execute(query).all()
    entries = [
        Entry(
            id=row.id, at=row.at_ms, actor=row.actor, action=row.action, subject=row.subject,
            detail=row.detail, hash=row.hash,
        )
        for row in rows[:limit]
    ]  # fmt: skip
    return AuditPage(entries=entries, next=entries[-1].id if len(rows) > limit else None)
