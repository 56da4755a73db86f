"""``/jobs``: waiting, running and completed jobs."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel
from sqlalchemy import Connection, Row, select

from .. import jobs
from .. import tables as t
from ..accounts import Principal
from ..jobs import JobStateError
from .links import links
from .problems import ProblemError, responses
from .security import allow, service_of

router = APIRouter(prefix="/jobs", tags=["jobs"])

Number = Annotated[int, Path(ge=1, le=2**53)]
Admin = Annotated[Principal, Depends(allow())]
JobState = Literal["waiting", "taken", "done", "cancelled"]


class Job(BaseModel):
    """One file to judge with one engine.

    Attributes:
        id: Number of the job.
        engine: Number of the engine.
        sha256: Digest of the file.
        state: Progress.
        priority: Higher priorities first.
        attempt: Number of attempts.
        error: Reason why the last attempt had no result.
        created, finished: Milliseconds since 1970, UTC.
    """

    id: int
    engine: int
    sha256: str
    state: JobState
    priority: int
    attempt: int
    error: str | None
    created: int
    finished: int | None


class JobPage(BaseModel):
    """Jobs, newest first.

    Attributes:
        jobs: Jobs of this page.
        next: Cursor of the next page; null on the last one.
    """

    jobs: list[Job]
    next: int | None


@router.get(
    "", response_model=JobPage,
    responses=links(
        200, "/jobs/0/id", "GET /jobs/{number}", "POST /jobs/{number}/retry",
        "POST /jobs/{number}/cancel",
    )
    | responses(401, 403, 422),
)  # fmt: skip
def list_jobs(
    request: Request, _: Admin, state: JobState | None = None,
    after: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobPage:  # fmt: skip
    """Jobs of all engines."""
    query = select(t.job).order_by(t.job.c.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(t.job.c.state == state)
    if after is not None:
        query = query.where(t.job.c.id < after)
    with service_of(request).database.read() as connection:
        rows = connection.execute(query).all()
    page = [_job(row) for row in rows[:limit]]
    return JobPage(jobs=page, next=page[-1].id if len(rows) > limit else None)


@router.get("/{number}", response_model=Job, responses=responses(401, 403, 404, 422))
def read_job(request: Request, number: Number, _: Admin) -> Job:
    """A job."""
    try:
        with service_of(request).database.read() as connection:
            return _job(jobs.find(connection, number))
    except LookupError as error:
        raise _missing(number) from error


@router.post("/{number}/retry", response_model=Job, responses=responses(401, 403, 404, 409, 422))
def retry(request: Request, number: Number, principal: Admin) -> Job:
    """Retry a cancelled job, or one with failed results that were not reviewed."""
    return _changed(request, number, lambda c: jobs.retry(c, number, principal.name))


@router.post("/{number}/cancel", response_model=Job, responses=responses(401, 403, 404, 409, 422))
def cancel(request: Request, number: Number, principal: Admin) -> Job:
    """Cancel a waiting job; its pictures get the state ``failed``."""
    return _changed(request, number, lambda c: jobs.cancel(c, number, principal.name))


def _changed(request: Request, number: int, change: Callable[[Connection], None]) -> Job:
    def work(connection: Connection) -> Job:
        change(connection)
        return _job(jobs.find(connection, number))

    service = service_of(request)
    try:
        job = service.database.write(work)
    except LookupError as error:
        raise _missing(number) from error
    except JobStateError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    service.wake()
    return job


def _missing(number: int) -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, f"found no job {number}")


def _job(row: Row[Any]) -> Job:
    return Job(
        id=row.id, engine=row.engine_id, sha256=row.sha256, state=row.state,
        priority=row.priority, attempt=row.attempt, error=row.error, created=row.created_ms,
        finished=row.finished_ms,
    )  # fmt: skip
