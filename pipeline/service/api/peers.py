"""``/peers`` and ``/callers``: DICOM nodes that may send pictures or receive results."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, delete, insert, select, update

from .. import audit_log, delivery, outbox, worklist
from .. import tables as t
from ..accounts import Principal
from ..database import now_ms
from ..sender import echo
from .models import Body
from .problems import ProblemError, responses
from .security import allow, service_of

router = APIRouter(tags=["dicom"])

Number = Annotated[int, Path(ge=1, le=2**53)]
Title = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,255}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class NewPeer(Body):
    """A DICOM node.

    Attributes:
        title: AE title, up to 16 ASCII characters. It does not authenticate the node.
        host: Address, or a name that resolves to it.
        port: TCP port; required for sending results.
        receive: Whether the node may send pictures.
        send: Whether the node receives results.
        tls: Whether results are sent over TLS.
        commitment: Whether storage commitment is requested.
    """

    title: Title
    host: Host
    port: Port | None = None
    receive: bool = True
    send: bool = False
    tls: bool = False
    commitment: bool = False


class PeerChange(Body):
    """Changes of a peer; null fields stay unchanged."""

    title: Title | None = None
    host: Host | None = None
    port: Port | None = None
    receive: bool | None = None
    send: bool | None = None
    tls: bool | None = None
    commitment: bool | None = None


class Peer(BaseModel):
    """A stored peer; see :class:`NewPeer`."""

    id: int
    title: str
    host: str
    port: int | None
    receive: bool
    send: bool
    tls: bool
    commitment: bool
    created: int


class Echo(BaseModel):
    """Result of a C-ECHO."""

    ok: bool
    detail: str


class Caller(BaseModel):
    """A node with rejected associations.

    Attributes:
        title: Calling AE title.
        host: Address.
        last: Time of the last association, milliseconds since 1970, UTC.
        count: Number of associations.
    """

    title: str
    host: str
    last: int
    count: int


@router.get("/peers", response_model=list[Peer], responses=responses(401, 403))
def list_peers(request: Request, _: Annotated[Principal, Depends(allow())]) -> list[Peer]:
    """All peers."""
    with service_of(request).database.read() as connection:
        rows = connection.execute(select(t.peer).order_by(t.peer.c.id)).all()
    return [_to_peer(row) for row in rows]


@router.post(
    "/peers", status_code=201, response_model=Peer, responses=responses(401, 403, 409, 422)
)
def add_peer(
    request: Request, body: NewPeer, principal: Annotated[Principal, Depends(allow())]
) -> Peer:
    """Add a peer, and remove it from the rejected nodes."""
    values = body.model_dump()

    def add(connection: Connection) -> Peer:
        _check(connection, values, None)
        key = connection.execute(
            insert(t.peer).values(**values, created_ms=now_ms())
        ).inserted_primary_key
        assert key is not None  # noqa: S101
        own = (t.caller.c.title == body.title, t.caller.c.host == body.host)
        connection.execute(delete(t.caller).where(*own))
        _log(connection, principal, "add peer", int(key[0]), values)
        return _to_peer(_row(connection, int(key[0])))

    return service_of(request).database.write(add)


@router.patch("/peers/{number}", response_model=Peer, responses=responses(401, 403, 404, 409, 422))
def change_peer(
    request: Request, number: Number, body: PeerChange,
    principal: Annotated[Principal, Depends(allow())],
) -> Peer:  # fmt: skip
    """Change a peer, and send its waiting objects now."""

    def change(connection: Connection) -> Peer:
        row = _row(connection, number)
        changed = {k: v for k, v in body.model_dump().items() if v is not None}
        _check(connection, {**row._mapping, **changed}, number)
        if changed:
            connection.execute(update(t.peer).where(t.peer.c.id == number).values(**changed))
            delivery.retry_peer(connection, number)
            _log(connection, principal, "change peer", number, changed)
        return _to_peer(_row(connection, number))

    return service_of(request).database.write(change)


@router.delete(
    "/peers/{number}", status_code=204, responses=responses(401, 403, 404, 422),
    response_class=Response,
)  # fmt: skip
def delete_peer(
    request: Request, number: Number, principal: Annotated[Principal, Depends(allow())]
) -> Response:
    """Delete a peer and its waiting objects."""
    service = service_of(request)

    def remove(connection: Connection) -> list[str]:
        row = _row(connection, number)
        free = outbox.delete_rows(connection, t.outbox.c.peer_id == number)
        connection.execute(delete(t.peer).where(t.peer.c.id == number))
        _log(connection, principal, "delete peer", number, {"title": row.title})
        return free

    for sha256 in service.database.write(remove):
        service.unlink(sha256)
    return Response(status_code=204)


@router.post(
    "/peers/{number}/echo", response_model=Echo, responses=responses(401, 403, 404, 409, 422)
)
def echo_peer(request: Request, number: Number, _: Annotated[Principal, Depends(allow())]) -> Echo:
    """Verify the connection with C-ECHO; send the waiting objects if the peer responds."""
    service = service_of(request)
    with service.database.read() as connection:
        row = _row(connection, number)
    if row.port is None:
        raise ProblemError(HTTPStatus.CONFLICT, "the peer has no port")
    ok, detail = echo(service, service.dicom, row)
    return Echo(ok=ok, detail=detail)


@router.get("/callers", response_model=list[Caller], responses=responses(401, 403))
def list_callers(request: Request, _: Annotated[Principal, Depends(allow())]) -> list[Caller]:
    """Nodes rejected because no peer has their title and address, latest first."""
    with service_of(request).database.read() as connection:
        rows = connection.execute(select(t.caller).order_by(t.caller.c.last_ms.desc())).all()
    return [Caller(title=r.title, host=r.host, last=r.last_ms, count=r.count) for r in rows]


def _check(connection: Connection, values: Any, number: int | None) -> None:
    """Refuse a duplicate peer, or one with ``send`` and without a port."""
    own = (t.peer.c.title == values["title"], t.peer.c.host == values["host"])
    known = connection.scalar(select(t.peer.c.id).where(*own))
    if known is not None and known != number:
        raise ProblemError(HTTPStatus.CONFLICT, f"peer {known} already has this title and host")
    if values["send"] and values["port"] is None:
        raise ProblemError(HTTPStatus.CONFLICT, "found send without a port, expected a port")


def _row(connection: Connection, number: int) -> Row[Any]:
    row = connection.execute(select(t.peer).where(t.peer.c.id == number)).first()
    if row is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no peer {number}")
    return row


def _log(
    connection: Connection, principal: Principal, action: str, number: int, detail: Any
) -> None:
    audit_log.append(connection, principal.name, action, f"peer/{number}", detail)
    worklist.add_event(connection, "peer", number, {})


def _to_peer(row: Row[Any]) -> Peer:
    return Peer(
        id=row.id, title=row.title, host=row.host, port=row.port, receive=row.receive,
        send=row.send, tls=row.tls, commitment=row.commitment, created=row.created_ms,
    )  # fmt: skip
