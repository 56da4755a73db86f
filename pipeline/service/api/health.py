"""``/livez`` and ``/readyz``, outside the versioned API."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from .security import service_of

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """State of the service.

    Attributes:
        ok: Whether there are no faults.
        faults: Descriptions of the faults.
    """

    ok: bool
    faults: list[str]


@router.get("/livez", response_model=Health)
async def live() -> Health:
    """The process is running."""
    return Health(ok=True, faults=[])


@router.get(
    "/readyz", response_model=Health,
    responses={503: {"model": Health, "description": "Not ready"}},
)  # fmt: skip
def ready(request: Request) -> JSONResponse:
    """Whether pictures can be received and judged."""
    service = service_of(request)
    faults = []
    try:
        with service.database.read() as connection:
            connection.execute(select(1))
    except SQLAlchemyError:
        faults.append("the database does not respond")
    if not service.blobs.has_room():
        faults.append("the disk is full")
    if service.judging is not None and service.judging.fault:
        faults.append(service.judging.fault)
    faults += [watcher.fault for watcher in service.watchers if watcher.fault]
    status = HTTPStatus.SERVICE_UNAVAILABLE if faults else HTTPStatus.OK
    return JSONResponse(Health(ok=not faults, faults=faults).model_dump(), status)
