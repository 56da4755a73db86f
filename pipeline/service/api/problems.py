"""Errors as problem details (RFC 9457)."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ...errors import BusyError
from ..arrivals import HeldError, KeyConflictError
from ..blobs import DiskFullError
from ..contents import ContentGoneError

log = logging.getLogger(__name__)

MEDIA = "application/problem+json"


class Problem(BaseModel):
    """A problem, as RFC 9457 describes it.

    Attributes:
        type: Always ``about:blank``.
        title: Title of the status.
        status: HTTP status.
        detail: Actual and expected state.
        errors: Errors by field.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] = []


class ProblemError(Exception):
    """Responds to a request with a problem.

    Args:
        status: HTTP status.
        detail: Actual and expected state; no patient identifiers.
        headers: Additional headers.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


Responses = dict[int | str, dict[str, Any]]


def responses(*statuses: int) -> Responses:
    """Declare problems for the OpenAPI document."""
    return {
        status: {
            "model": Problem, "description": HTTPStatus(status).phrase,
            "content": {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }  # fmt: skip


def add_handlers(app: FastAPI) -> None:
    """Add handlers that convert all errors of an application to problems."""
    app.add_exception_handler(ProblemError, _handle_problem)
    app.add_exception_handler(HTTPException, _handle_http)
    app.add_exception_handler(RequestValidationError, _handle_validation)
    for kind, status in _STATUS.items():
        app.add_exception_handler(kind, _handler_of(status))
    app.add_exception_handler(Exception, _handle_unexpected)


_STATUS: dict[type[Exception], HTTPStatus] = {
    KeyConflictError: HTTPStatus.CONFLICT,
    HeldError: HTTPStatus.LOCKED,
    ContentGoneError: HTTPStatus.TOO_MANY_REQUESTS,
    DiskFullError: HTTPStatus.INSUFFICIENT_STORAGE,
    BusyError: HTTPStatus.TOO_MANY_REQUESTS,
}


def problem(
    status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None,
    errors: list[dict[str, Any]] | None = None,
) -> JSONResponse:  # fmt: skip
    """A response with a problem; 429 and 507 get a Retry-After."""
    headers = dict(headers or {})
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INSUFFICIENT_STORAGE):
        headers.setdefault("Retry-After", "5")
    body = Problem(title=status.phrase, status=status, detail=detail, errors=errors or [])
    return JSONResponse(body.model_dump(), status, headers, MEDIA)


async def _handle_problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)  # noqa: S101
    return problem(error.status, error.detail, error.headers)


async def _handle_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.BAD_REQUEST:  # status of FastAPI for a body that cannot be parsed
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    return problem(status, str(error.detail), error.headers)


async def _handle_validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    faults = [
        {"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()
    ]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the request has invalid values", errors=faults)


def _handler_of(status: HTTPStatus) -> Any:
    async def handle(_: Request, error: Exception) -> JSONResponse:
        return problem(status, str(error))

    return handle


async def _handle_unexpected(request: Request, error: Exception) -> JSONResponse:
    # Error message and path are not logged, because they may contain patient identifiers.
    route = getattr(request.scope.get("route"), "path", "")
    lines = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s %s: %s\n%s", request.method, route, type(error).__name__, lines.rstrip())
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "an internal error; see the log")


def is_not_application_error(record: logging.LogRecord) -> bool:
    """Whether a log record of uvicorn does not concern an application error.

    Application errors are already logged here, without their messages.
    """
    return not record.getMessage().startswith("Exception in ASGI application")
