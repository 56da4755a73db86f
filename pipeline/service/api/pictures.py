"""``/pictures``: upload, worklist, results, rendered pictures."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection, Row, and_, or_, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ...source import MAX_NAME_CHARS
from .. import store
from .. import tables as t
from ..accounts import Principal
from ..application import Service
from ..store import Arrival
from .models import Picture, PicturePage, PictureWithResults, Result
from .problems import ProblemError, Responses, responses
from .security import allow, service_of

router = APIRouter(prefix="/pictures", tags=["pictures"])

_REPEATED: Responses = {
    200: {"model": PictureWithResults, "description": "Repeated Idempotency-Key"}
}
_WAIT_S = 10.0
"""Seconds that an upload waits for its turn before it is refused."""
Number = Annotated[int, Path(ge=1, le=2**53)]
Frame = Annotated[int, Path(ge=0, le=2**31 - 1)]
Answer = Literal["positive", "uncertain", "negative", "unsupported", "failed"]


@router.post(
    "",
    status_code=201,
    response_model=PictureWithResults,
    responses=_REPEATED | responses(400, 401, 403, 409, 411, 413, 415, 429, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def upload(
    request: Request,
    principal: Annotated[Principal, Depends(allow("sender", "reader"))],
    idempotency_key: Annotated[str | None, Header(max_length=255, min_length=1)] = None,
    content_disposition: Annotated[str | None, Header(max_length=4096)] = None,
) -> Response:
    """Receive one file as the raw body; 201 means that it is stored and will be judged.

    Its name is that of a ``Content-Disposition`` header. The same bytes may be sent again: they
    are judged once. With an ``Idempotency-Key``, a repeated request has no effect.
    """
    service = service_of(request)
    size = _declared_size(request, service.config.most_bytes)
    await refuse_overload(service, size)
    name = file_name(content_disposition)
    async with turn(request), _body(request, service, size) as content:
        arrival = Arrival(content, name, "http", principal.sender, idempotency_key)
        number, is_new = await asyncio.wrap_future(
            service.database.submit(
                lambda c: store.receive(c, arrival, lambda s: service.blobs.path(s).exists())
            )
        )
    service.wake()
    found = await run_in_threadpool(_read, service, number, principal)
    status = HTTPStatus.CREATED if is_new else HTTPStatus.OK
    headers = {"Location": f"/api/v1/pictures/{number}"}
    return JSONResponse(found.model_dump(), status, headers)


def _declared_size(request: Request, most: int) -> int:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media.startswith("multipart/"):
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"found a body of type {media}, expected the file itself as the body",
        )
    text = request.headers.get("content-length", "")
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ProblemError(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
    if int(text) > most:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"found {text} bytes, expected at most {most}"
        )
    if not int(text):
        raise ProblemError(HTTPStatus.BAD_REQUEST, "found an empty body, expected a file")
    return int(text)


async def refuse_overload(service: Service, size: int) -> None:
    """Refuse an upload while the disk is full or too many pictures wait.

    Raises:
        ProblemError: 429 or 507.
    """

    def count() -> int:
        with service.database.read() as connection:
            active = store.active_engine(connection)
            return 0 if active is None else store.waiting(connection, active.id)

    if not await run_in_threadpool(service.blobs.has_room, size):
        raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, "the disk is full")
    waiting = await run_in_threadpool(count)
    if waiting >= service.config.most_waiting:
        wait_s = min(600, max(1, round(waiting / 10 / max(service.rate, 0.1))))
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"found {waiting} waiting pictures, expected fewer than {service.config.most_waiting}",
            {"Retry-After": str(wait_s)},
        )


@asynccontextmanager
async def turn(request: Request) -> AsyncIterator[None]:
    """Receive few bodies at once; others wait a while.

    Raises:
        ProblemError: 429.
    """
    semaphore: asyncio.Semaphore = request.app.state.bodies
    try:
        await asyncio.wait_for(semaphore.acquire(), _WAIT_S)
    except TimeoutError as error:
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS, "too many uploads at once", {"Retry-After": "2"}
        ) from error
    try:
        yield
    finally:
        semaphore.release()


@asynccontextmanager
async def _body(request: Request, service: Service, size: int) -> AsyncIterator[Any]:
    """Store the body durably; the content of an incomplete one is removed."""
    with await run_in_threadpool(service.blobs.receive) as receiving:
        try:
            async for part in request.stream():
                receiving.write(part)
        except ClientDisconnect as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "the upload ended early") from error
        if receiving.size != size:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, f"found {receiving.size} bytes, expected {size}"
            )
        yield await run_in_threadpool(receiving.keep)


def file_name(disposition: str | None) -> str:
    """The file name of a Content-Disposition header (RFC 6266), without folders."""
    if not disposition:
        return "picture"
    message = Message()
    try:
        message["content-disposition"] = disposition.encode("latin-1", "replace").decode("latin-1")
        name = message.get_filename() or ""
    except (ValueError, LookupError, UnicodeError):
        name = ""
    name = re.split(r"[\\/]", unquote(name) if "%" in name else name)[-1]
    name = "".join(char for char in name if char.isprintable()).strip()
    return name[:MAX_NAME_CHARS] or "picture"


@router.get("", response_model=PicturePage, responses=responses(401, 403, 422))
def list_pictures(
    request: Request,
    principal: Annotated[Principal, Depends(allow("reader"))],
    state: Literal["waiting", "reading", "answered", "unsupported", "failed"] | None = None,
    answer: Answer | None = None,
    region: Annotated[str | None, Query(max_length=32)] = None,
    study: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    reviewed: bool | None = None,
    order: Literal["urgency", "newest"] = "urgency",
    after: Annotated[str | None, Query(pattern=r"^[0-9]{1,3}-[0-9]{1,15}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PicturePage:
    """The worklist by urgency, newest first among equals; or by time of arrival."""
    arrival = t.arrival.c
    wanted: list[Any] = [arrival.deleted_ms.is_(None)]
    for column, value in (
        (arrival.state, state), (arrival.answer, answer), (arrival.region, region),
        (arrival.study_id, study),
    ):  # fmt: skip
        if value is not None:
            wanted.append(column == value)
    if reviewed is not None:
        wanted.append(arrival.review.is_not(None) if reviewed else arrival.review.is_(None))
    by_rank = order == "urgency"
    if after is not None:
        rank, number = map(int, after.split("-"))
        older = arrival.id < number
        wanted.append(
            or_(arrival.rank > rank, and_(arrival.rank == rank, older)) if by_rank else older
        )
    sorting = [arrival.rank, arrival.id.desc()] if by_rank else [arrival.id.desc()]
    query = select(t.arrival).where(*wanted).order_by(*sorting).limit(limit + 1)
    with service_of(request).database.read() as connection:
        rows = connection.execute(query).all()
        reviewed_by = _reviewed_by(connection, principal, rows)
    shown = [to_picture(row, principal, row.id in reviewed_by) for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return PicturePage(pictures=shown, next=f"{last.rank}-{last.id}" if last else None)


@router.get("/{number}", response_model=PictureWithResults, responses=responses(401, 403, 404, 422))
def read_picture(
    request: Request,
    number: Number,
    principal: Annotated[Principal, Depends(allow("sender", "reader"))],
) -> PictureWithResults:
    """A picture with its results, a list that is empty until it is judged."""
    return _read(service_of(request), number, principal)


@router.delete(
    "/{number}", status_code=204, responses=responses(401, 403, 404, 422, 423),
    response_class=Response,
)  # fmt: skip
def delete_picture(
    request: Request, number: Number, principal: Annotated[Principal, Depends(allow())]
) -> Response:
    """Delete a picture, its results and, unless another picture has it, its content."""
    service = service_of(request)
    with service.database.read() as connection:
        find(connection, number, principal)
    service.remove(number, principal.name)
    return Response(status_code=204)


_JPEG: Responses = {200: {"content": {"image/jpeg": {}}}}


@router.get(
    "/{number}/frames/{frame}/view", response_class=Response,
    responses=_JPEG | responses(401, 403, 404, 422),
)  # fmt: skip
def view(
    request: Request, number: Number, frame: Frame,
    principal: Annotated[Principal, Depends(allow("reader"))],
) -> Response:  # fmt: skip
    """The rendered picture, longest side at most 1024 px; frame 0 is the only or first one."""
    service = service_of(request)
    with service.database.read() as connection:
        row = find(connection, number, principal)
        one = _frame(connection, row, frame)
    content = service.views.get(row.sha256, one.frame)
    if content is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the picture has no view")
    return Response(content, media_type="image/jpeg", headers=_immutable(row.sha256))


@router.get(
    "/{number}/frames/{frame}/thumb", response_class=Response,
    responses=_JPEG | responses(401, 403, 404, 422),
)  # fmt: skip
def thumb(
    request: Request, number: Number, frame: Frame,
    principal: Annotated[Principal, Depends(allow("reader"))],
) -> Response:  # fmt: skip
    """The picture of the worklist, longest side at most 160 px."""
    with service_of(request).database.read() as connection:
        row = find(connection, number, principal)
        one = _frame(connection, row, frame)
    encoded = one.row.get("picture", {}).get("thumb")
    if encoded is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the picture has no view")
    content = base64.b64decode(encoded)
    return Response(content, media_type="image/jpeg", headers=_immutable(row.sha256))


def _immutable(sha256: str) -> dict[str, str]:
    return {"Cache-Control": "private, max-age=31536000, immutable", "ETag": f'"{sha256[:16]}"'}


def find(connection: Connection, number: int, principal: Principal) -> Row[Any]:
    """An arrival that a principal may see; a sender sees its own.

    Raises:
        ProblemError: 404.
    """
    row = connection.execute(
        select(t.arrival).where(t.arrival.c.id == number, t.arrival.c.deleted_ms.is_(None))
    ).first()
    if row is None or (principal.role == "sender" and row.sender != principal.sender):
        raise ProblemError(HTTPStatus.NOT_FOUND, f"there is no picture {number}")
    return row


def _frame(connection: Connection, arrival: Row[Any], frame: int) -> Row[Any]:
    """Result and row of a frame of the active engine; frame 0 of a single picture is stored -1."""
    active = store.active_engine(connection)
    row: Any = connection.execute(
        select(t.result.c.frame, t.detail.c.row)
        .join(t.detail, t.detail.c.result_id == t.result.c.id)
        .where(
            t.result.c.sha256 == arrival.sha256,
            t.result.c.engine_id == (active.id if active else 0),
            t.result.c.frame.in_((frame, -1) if frame == 0 else (frame,)),
        )
    ).first()
    if row is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"there is no judged frame {frame}")
    return row


def _reviewed_by(connection: Connection, principal: Principal, rows: Any) -> set[int]:
    """The arrivals that a blind reader has reviewed."""
    if not principal.blind or not rows:
        return set()
    return set(
        connection.scalars(
            select(t.arrival.c.id)
            .join(t.result, t.result.c.sha256 == t.arrival.c.sha256)
            .join(t.review, t.review.c.result_id == t.result.c.id)
            .where(
                t.arrival.c.id.in_([row.id for row in rows]),
                t.review.c.reader_id == principal.user,
            )
        )
    )


def to_picture(row: Row[Any], principal: Principal, reviewed: bool) -> Picture:
    """A row of the worklist, without fxpipe's answer for a blind reader."""
    hidden = principal.blind and not reviewed and row.state in ("answered", "unsupported")
    return Picture(
        id=row.id, name=row.name, source=row.source, received=row.received_ms, sha256=row.sha256,
        state=row.state, study=row.study_id, review=row.review, hidden=hidden,
        answer=None if hidden else row.answer, region=None if hidden else row.region,
        probability=None if hidden else row.probability,
    )  # fmt: skip


def _read(service: Service, number: int, principal: Principal) -> PictureWithResults:
    with service.database.read() as connection:
        row = find(connection, number, principal)
        reviewed = row.id in _reviewed_by(connection, principal, [row])
        picture = to_picture(row, principal, reviewed)
        active = store.active_engine(connection)
        rows = connection.execute(
            select(t.result, t.detail.c.row)
            .join(t.detail, t.detail.c.result_id == t.result.c.id)
            .where(
                t.result.c.sha256 == row.sha256,
                t.result.c.engine_id == (active.id if active else 0),
            )
            .order_by(t.result.c.frame)
        ).all()
    results = [to_result(one, row.name, picture.hidden) for one in rows]
    return PictureWithResults(**picture.model_dump(), results=results)


def to_result(row: Row[Any], name: str, hidden: bool) -> Result:
    """A result; without heatmaps, which have an address of their own."""
    frame = None if row.frame < 0 else row.frame
    if hidden:
        return Result(
            id=row.id, engine=row.engine_id, frame=frame, status=None, answer=None, region=None,
            probability=None, record=None, findings=None, flags=None, error=None, hidden=True,
        )  # fmt: skip
    record = {**row.row["record"], "path": name}
    findings = [{k: v for k, v in f.items() if k != "layer"} for f in row.row["findings"]]
    return Result(
        id=row.id, engine=row.engine_id, frame=frame, status=row.status, answer=row.answer,
        region=row.region, probability=row.probability, record=record, findings=findings,
        flags=row.row["flags"], error=record.get("error"),
    )  # fmt: skip
