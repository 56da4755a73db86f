"""``/pictures``: upload, worklist, results, legal holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Connection, Row, and_, func, not_, or_, select, update
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ...report.record import plain
from .. import arrivals, audit_log, engine_state, job_queue, pages, worklist
from .. import tables as t
from ..accounts import Principal
from ..application import Service
from ..arrivals import Arrival
from ..stored_outcome import renamed
from ..visibility import visible, visible_among
from .files import file_name
from .links import links
from .models import Picture, PicturePage, PictureWithResults, Result
from .problems import ProblemError, Responses, responses
from .security import allow, service_of

router = APIRouter(prefix="/pictures", tags=["pictures"])

_REPEATED: Responses = {
    200: {"model": PictureWithResults, "description": "Repeated Idempotency-Key"}
}
FRAME_PARTS = ("view", "thumb", "heatmap", "pixels")
_WAIT_S = 10.0
"""Seconds that an upload waits for a free slot before it is refused."""
Number = Annotated[int, Path(ge=1, le=2**53)]
Answer = Literal["positive", "uncertain", "negative", "unsupported", "failed"]


@router.post(
    "",
    status_code=201,
    response_model=PictureWithResults,
    responses=_REPEATED
    | links(201, "/id", "GET /pictures/{number}", "DELETE /pictures/{number}")
    | responses(400, 401, 403, 409, 411, 413, 415, 422, 429, 507),
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

    The file name is taken from the ``Content-Disposition`` header. Identical contents are judged
    once. With an ``Idempotency-Key``, a repeated request has no effect.
    """
    service = service_of(request)
    size = _declared_size(request, service.config.most_bytes)
    name = file_name(content_disposition)
    async with upload_slot(request, size), _body(request, service, size) as content:
        arrival = Arrival(content, name, "http", principal.sender, idempotency_key)
        number, is_new = await asyncio.wrap_future(
            service.database.submit(lambda c: arrivals.receive(c, arrival, service.blobs.exists))
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
            f"found a body of type {media}, expected the file as the raw body",
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


async def _refuse_overload(service: Service, size: int) -> None:
    """Refuse an upload while the disk is full or too many pictures are waiting.

    Raises:
        ProblemError: 429 or 507.
    """

    def count() -> int:
        with service.database.read() as connection:
            active = engine_state.active_engine(connection)
            return 0 if active is None else job_queue.waiting(connection, active.id)

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
async def upload_slot(request: Request, size: int) -> AsyncIterator[None]:
    """Limit the number of concurrent uploads; further uploads wait for a slot.

    The limits of queue and disk are checked after the wait, so that few uploads can exceed them.

    Args:
        request: An upload.
        size: Bytes of its body, 0 if unknown.

    Raises:
        ProblemError: 429 or 507.
    """
    semaphore: asyncio.Semaphore = request.app.state.bodies
    try:
        await asyncio.wait_for(semaphore.acquire(), _WAIT_S)
    except TimeoutError as error:
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS, "too many concurrent uploads", {"Retry-After": "2"}
        ) from error
    try:
        await _refuse_overload(service_of(request), size)
        yield
    finally:
        semaphore.release()


@asynccontextmanager
async def _body(request: Request, service: Service, size: int) -> AsyncIterator[Any]:
    """Store the body; incomplete content is removed."""
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


_ON_PICTURES = links(
    200, "/pictures/0/id", "GET /pictures/{number}", "GET /pictures/{number}/content",
    "PUT /pictures/{number}/hold", "DELETE /pictures/{number}/hold",
    *(f"GET /pictures/{{number}}/frames/{{frame}}/{name}" for name in FRAME_PARTS),
)  # fmt: skip


@router.get("", response_model=PicturePage, responses=_ON_PICTURES | responses(401, 403, 422))
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
    """The worklist by urgency, then newest first; or by time of arrival.

    For blind readers it is always by time of arrival, and filters by answer or region match only
    pictures that they have reviewed: anything else would reveal the answers.
    """
    arrival = t.arrival.c
    conditions: list[Any] = [arrival.deleted_ms.is_(None), *_state_condition(state, principal)]
    # The index of a study is better than that of a region, which this expression does not use.
    in_region = arrival.region if study is None else func.coalesce(arrival.region, "")
    for column, value in (
        (arrival.answer, answer), (in_region, region), (arrival.study_id, study),
    ):  # fmt: skip
        if value is not None:
            conditions.append(column == value)
    if answer is not None or region is not None:
        conditions += visible(principal)
    if reviewed is not None:
        conditions.append(arrival.review.is_not(None) if reviewed else arrival.review.is_(None))
    ranks = worklist.ranks(state, answer, blind=principal.blind)
    by_rank = order == "urgency" and not principal.blind
    rank, number = map(int, after.split("-")) if after else (None, None)
    query = (
        pages.by_urgency(t.arrival, conditions, ranks, limit + 1, rank, number)
        if by_rank
        else pages.by_number(t.arrival, conditions, ranks, limit + 1, number)
    )
    with service_of(request).database.read() as connection:
        rows = connection.execute(query).all()
        pictures = to_pictures(connection, rows[:limit], principal)
    last = rows[limit - 1] if len(rows) > limit else None
    cursor = f"{last.rank if by_rank else 0}-{last.id}" if last else None
    return PicturePage(pictures=pictures, next=cursor)


def _state_condition(state: str | None, principal: Principal) -> list[Any]:
    """Condition by state; hidden pictures count as answered, even if they are unsupported."""
    arrival = t.arrival.c
    if state is None:
        return []
    if principal.blind and state == "unsupported":
        return [arrival.state == state, *visible(principal)]
    if principal.blind and state == "answered":
        hidden = and_(arrival.state == "unsupported", not_(and_(*visible(principal))))
        return [or_(arrival.state == state, hidden)]
    return [arrival.state == state]


@router.get(
    "/{number}", response_model=PictureWithResults,
    responses=links(
        200, "/results/0/id", "GET /results/{number}/reviews", "POST /results/{number}/reviews"
    )
    | responses(401, 403, 404, 422),
)  # fmt: skip
def read_picture(
    request: Request,
    number: Number,
    principal: Annotated[Principal, Depends(allow("sender", "reader"))],
) -> PictureWithResults:
    """A picture with its results; the list is empty until the picture is judged."""
    return _read(service_of(request), number, principal)


@router.delete(
    "/{number}", status_code=204, responses=responses(401, 403, 404, 422, 423),
    response_class=Response,
)  # fmt: skip
def delete_picture(
    request: Request, number: Number, principal: Annotated[Principal, Depends(allow())]
) -> Response:
    """Delete a picture and its results, and its content unless another picture uses it."""
    service = service_of(request)
    with service.database.read() as connection:
        find(connection, number, principal)
    service.remove(number, principal.name)
    return Response(status_code=204)


@router.put(
    "/{number}/hold", status_code=204, responses=responses(401, 403, 404, 422),
    response_class=Response,
)  # fmt: skip
def hold(
    request: Request, number: Number, principal: Annotated[Principal, Depends(allow())]
) -> Response:
    """Put a picture under a legal hold, which prevents deletion, also by retention rules."""
    return _set_hold(request, number, principal, True)


@router.delete(
    "/{number}/hold", status_code=204, responses=responses(401, 403, 404, 422),
    response_class=Response,
)  # fmt: skip
def release(
    request: Request, number: Number, principal: Annotated[Principal, Depends(allow())]
) -> Response:
    """Release a legal hold."""
    return _set_hold(request, number, principal, False)


def _set_hold(request: Request, number: int, principal: Principal, held: bool) -> Response:
    def change(connection: Connection) -> None:
        row = find(connection, number, principal)
        connection.execute(update(t.blob).where(t.blob.c.sha256 == row.sha256).values(held=held))
        action = "hold" if held else "release hold"
        audit_log.append(connection, principal.name, action, f"picture/{number}")

    service_of(request).database.write(change)
    return Response(status_code=204)


def find(connection: Connection, number: int, principal: Principal) -> Row[Any]:
    """An arrival that a principal may see; senders see only their own.

    Raises:
        ProblemError: 404.
    """
    row = connection.execute(
        select(t.arrival).where(t.arrival.c.id == number, t.arrival.c.deleted_ms.is_(None))
    ).first()
    if row is None or (principal.role == "sender" and row.sender != principal.sender):
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no picture {number}")
    return row


def to_pictures(
    connection: Connection, rows: Sequence[Row[Any]], principal: Principal
) -> list[Picture]:
    """Rows of the worklist; see :func:`to_picture`."""
    seen = visible_among(connection, principal, {row.sha256 for row in rows})
    return [to_picture(row, principal, row.sha256 in seen) for row in rows]


def to_picture(row: Row[Any], principal: Principal, reviewed: bool) -> Picture:
    """A row of the worklist; the answer is omitted for blind readers.

    Args:
        row: Row of table ``arrival``.
        principal: The user or program.
        reviewed: Whether a blind reader has reviewed it.
    """
    hidden = principal.blind and not reviewed and row.state in ("answered", "unsupported")
    return Picture(
        id=row.id, name=row.name, source=row.source, received=row.received_ms, sha256=row.sha256,
        state="answered" if hidden else row.state, study=row.study_id,
        review=None if hidden else row.review, hidden=hidden,
        answer=None if hidden else row.answer, region=None if hidden else row.region,
        probability=None if hidden else row.probability,
    )  # fmt: skip


def _read(service: Service, number: int, principal: Principal) -> PictureWithResults:
    with service.database.read() as connection:
        row = find(connection, number, principal)
        (picture,) = to_pictures(connection, [row], principal)
        held = connection.scalar(select(t.blob.c.held).where(t.blob.c.sha256 == row.sha256))
        rows = connection.execute(
            select(t.result, t.detail.c.row, t.job.c.name)
            .join(t.detail, t.detail.c.result_id == t.result.c.id)
            .join(t.job, t.job.c.id == t.result.c.job_id)
            .where(t.result.c.sha256 == row.sha256, t.result.c.engine_id == row.engine_id)
            .order_by(t.result.c.frame)
        ).all()
    results = [to_result(one, row.name, picture.hidden) for one in rows]
    return PictureWithResults(**picture.model_dump(), held=bool(held), results=results)


def to_result(row: Row[Any], name: str, hidden: bool) -> Result:
    """A result without heatmaps, which have a separate address.

    Args:
        row: Row of table ``result``, with ``row`` of its detail and ``name`` of its job.
        name: Name of the picture.
        hidden: Whether to omit the answer.
    """
    frame = None if row.frame < 0 else row.frame
    if hidden:
        return Result(
            id=row.id, engine=row.engine_id, frame=frame, status=None, answer=None, region=None,
            probability=None, record=None, findings=None, flags=None, error=None, hidden=True,
        )  # fmt: skip
    record = {**row.row["record"], "path": plain(name)}
    if "error" in record:
        record["error"] = renamed(record["error"], plain(row.name or "picture"), plain(name))
    findings = [{k: v for k, v in f.items() if k != "layer"} for f in row.row["findings"]]
    return Result(
        id=row.id, engine=row.engine_id, frame=frame, status=row.status, answer=row.answer,
        region=row.region, probability=row.probability, record=record, findings=findings,
        flags=row.row["flags"], error=record.get("error"),
    )  # fmt: skip
