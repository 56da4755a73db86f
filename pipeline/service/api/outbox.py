"""``/outbox``: DICOM objects for peers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel
from sqlalchemy import Connection, Row, select

from .. import audit_log, delivery
from .. import tables as t
from ..accounts import Principal
from .problems import ProblemError, responses
from .security import allow, service_of

router = APIRouter(prefix="/outbox", tags=["dicom"])

_QUERY = select(t.outbox, t.peer.c.title).join(t.peer, t.peer.c.id == t.outbox.c.peer_id)
State = Literal["waiting", "sending", "committing", "sent", "failed", "attention"]


class Outgoing(BaseModel):
    """A DICOM object for a peer.

    Attributes:
        id: Number of the object.
        uid: SOPInstanceUID.
        kind: ``report``, ``overlay`` or ``marks``.
        study: Number of the study.
        peer: Number of the receiver.
        receiver: Its AE title.
        state: ``waiting``; ``sending``; ``committing`` (received, not yet confirmed); ``sent``;
            ``failed`` (permanently refused); ``attention`` (attempts ended after days).
        tries: Attempts since the last reset.
        next: Time of the next attempt; null if none is planned.
        error: Reason of the last failure, or remark of the receiver.
    """

    id: int
    uid: str
    kind: str
    study: int
    peer: int
    receiver: str
    state: State
    tries: int
    next: int | None
    error: str | None


class OutgoingPage(BaseModel):
    """A page of the outbox, newest first.

    Attributes:
        objects: Objects of this page.
        next: Cursor of the next page; null on the last one.
    """

    objects: list[Outgoing]
    next: int | None


@router.get("", response_model=OutgoingPage, responses=responses(401, 403, 422))
def list_outbox(
    request: Request,
    principal: Annotated[Principal, Depends(allow("reader"))],
    state: State | None = None,
    study: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    after: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> OutgoingPage:
    """Objects to send, and sent objects.

    Blind readers get reports only, because only positive pictures have overlays and marks.
    """
    row = t.outbox.c
    wanted: list[Any] = [row.kind == "report"] if principal.blind else []
    if state is not None:
        wanted.append(row.state == state)
    if study is not None:
        wanted.append(row.study_id == study)
    if after is not None:
        wanted.append(row.id < after)
    query = _QUERY.where(*wanted).order_by(row.id.desc()).limit(limit + 1)
    with service_of(request).database.read() as connection:
        rows = connection.execute(query).all()
    more = len(rows) > limit
    return OutgoingPage(
        objects=[_to_outgoing(one) for one in rows[:limit]],
        next=rows[limit - 1].id if more else None,
    )


@router.post(
    "/{number}/retry", response_model=Outgoing, responses=responses(401, 403, 404, 409, 422)
)
def retry(
    request: Request,
    number: Annotated[int, Path(ge=1, le=2**53)],
    principal: Annotated[Principal, Depends(allow())],
) -> Outgoing:
    """Reset the attempts of an object and send it now."""

    def write(connection: Connection) -> Outgoing:
        row = _row(connection, number)
        if row.state == "sent":
            raise ProblemError(HTTPStatus.CONFLICT, "the receiver already has the object")
        delivery.retry(connection, t.outbox.c.id == number)
        audit_log.append(connection, principal.name, "send again", f"outbox/{number}")
        return _to_outgoing(_row(connection, number))

    return service_of(request).database.write(write)


def _row(connection: Connection, number: int) -> Row[Any]:
    row = connection.execute(_QUERY.where(t.outbox.c.id == number)).first()
    if row is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no object {number}")
    return row


def _to_outgoing(row: Row[Any]) -> Outgoing:
    pending = row.state in ("waiting", "committing")
    return Outgoing(
        id=row.id, uid=row.object_uid, kind=row.kind, study=row.study_id, peer=row.peer_id,
        receiver=row.title, state=row.state, tries=row.tries,
        next=row.next_ms if pending else None, error=row.error,
    )  # fmt: skip
