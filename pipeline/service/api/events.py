"""``/events``: changes as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import Row, func, select
from starlette.concurrency import run_in_threadpool

from .. import tables as t
from ..accounts import Principal
from ..application import Service
from .problems import Responses, responses
from .security import allow, service_of

router = APIRouter(tags=["events"])

_STREAM: Responses = {200: {"content": {"text/event-stream": {}}}}
_POLL_S = 0.25
_HEARTBEAT_S = 15.0
_MOST = 500
"""A client that missed more changes gets ``resync``."""


@router.get(
    "/events", response_class=StreamingResponse,
    responses=_STREAM | responses(401, 403, 422),
)  # fmt: skip
async def events(
    request: Request,
    _: Annotated[Principal, Depends(allow("reader", "auditor"))],
    last_event_id: Annotated[str | None, Header(pattern=r"^[0-9]{1,15}$")] = None,
) -> StreamingResponse:
    """New changes, or all changes after ``Last-Event-ID``.

    The data of an event is the number of its picture. ``resync``: changes were missed; load the
    content again.
    """
    service = service_of(request)
    start = int(last_event_id) if last_event_id else await run_in_threadpool(_newest, service)
    return StreamingResponse(
        _stream(request, service, start), media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )  # fmt: skip


async def _stream(request: Request, service: Service, last: int) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    idle_s = 0.0
    while not await request.is_disconnected() and not request.app.state.stopping:
        rows = await run_in_threadpool(_after, service, last)
        if len(rows) > _MOST:
            last = await run_in_threadpool(_newest, service)
            yield f"id: {last}\nevent: resync\ndata: {{}}\n\n"
        for row in rows[: _MOST if len(rows) <= _MOST else 0]:
            last = int(row.id)
            data = json.dumps({**row.data, "subject": row.subject})
            yield f"id: {last}\nevent: {row.kind}\ndata: {data}\n\n"
        idle_s = 0.0 if rows else idle_s + _POLL_S
        if idle_s >= _HEARTBEAT_S:
            idle_s = 0.0
            yield ": heartbeat\n\n"
        await asyncio.sleep(_POLL_S)


def _newest(service: Service) -> int:
    with service.database.read() as connection:
        return int(connection.scalar(select(func.max(t.event.c.id))) or 0)


def _after(service: Service, last: int) -> list[Row[Any]]:
    with service.database.read() as connection:
        query = select(t.event).where(t.event.c.id > last).order_by(t.event.c.id)
        return list(connection.execute(query.limit(_MOST + 1)).all())
