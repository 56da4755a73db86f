"""``/engines``: active engine, candidates and promotion."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Integer, Row, cast, func, select

from ...errors import FxpipeError
from .. import engine_state, engine_table
from .. import tables as t
from ..accounts import Principal
from ..application import Service
from ..engine_table import EngineStateError
from ..engines import Engines
from ..visibility import visible
from .links import links
from .models import Body
from .problems import ProblemError, responses
from .security import allow, service_of

router = APIRouter(prefix="/engines", tags=["engines"])

Number = Annotated[int, Path(ge=1, le=2**53)]
Admin = Annotated[Principal, Depends(allow())]
_MOST_CHANGED = 200


class EngineRequest(Body):
    """Weights to open.

    Attributes:
        weights: Path of a weights folder on the server.
    """

    weights: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]


class EngineInfo(BaseModel):
    """Weights with settings.

    Attributes:
        id: Number of the engine.
        digest: Identity of weights and settings.
        weights: Path of the weights folder on the server.
        version: Version of fxpipe that registered the engine.
        state: Progress.
        created: Milliseconds since 1970, UTC.
        judged, waiting: Numbers of files.
        loaded: Whether the engine is open in this process.
    """

    id: int
    digest: str
    weights: str
    version: str
    state: Literal["active", "candidate", "retired"]
    created: int
    judged: int
    waiting: int
    loaded: bool


class Change(BaseModel):
    """A picture with different answers of two engines.

    Attributes:
        picture: Number of the picture.
        frame: Frame of a multi-frame file; null for a single picture.
        before, after: Answers of the active and of the other engine.
        region_before, region_after: Regions of these answers.
        probability_before, probability_after: Probabilities of these answers.
    """

    picture: int
    frame: int | None
    before: str
    after: str
    region_before: str | None
    region_after: str | None
    probability_before: float | None
    probability_after: float | None


class Comparison(BaseModel):
    """An engine compared with the active one.

    Attributes:
        pictures: Number of pictures judged by both.
        agree: Number of identical answers.
        changed: The first 200 pictures with different answers.
    """

    pictures: int
    agree: int
    changed: list[Change]


@router.get(
    "", response_model=list[EngineInfo],
    responses=links(200, "/0/id", "GET /engines/{number}/comparison") | responses(401, 403),
)  # fmt: skip
def list_engines(
    request: Request, _: Annotated[Principal, Depends(allow("reader", "auditor"))]
) -> list[EngineInfo]:
    """All engines, oldest first."""
    service = service_of(request)
    with service.database.read() as connection:
        return _infos(connection, service)


@router.post(
    "", status_code=201, response_model=EngineInfo, responses=responses(401, 403, 409, 422)
)
def add_engine(request: Request, body: EngineRequest, principal: Admin) -> EngineInfo:
    """Open weights as a candidate, which judges new and the last 200 pictures in the background.

    409: the weights are in use, there are too many candidates, or this process does not judge.
    422: the weights cannot be opened.
    """
    service = service_of(request)
    try:
        number = _engines(service).add_candidate(FilePath(body.weights), principal.name)
    except EngineStateError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    except (FxpipeError, OSError) as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    with service.database.read() as connection:
        return next(one for one in _infos(connection, service) if one.id == number)


@router.get(
    "/{number}/comparison", response_model=Comparison, responses=responses(401, 403, 404, 422)
)
def compare(request: Request, number: Number, principal: Admin) -> Comparison:
    """Compare the answers of an engine with those of the active engine.

    Blind administrators get only changes of pictures that they have reviewed.
    """
    with service_of(request).database.read() as connection:
        active = engine_state.active_engine(connection)
        if engine_table.by_number(connection, number) is None or active is None:
            raise _missing(number)
        both = engine_table.differences(number, active.id).subquery()
        pictures, agree = connection.execute(
            select(func.count(), func.coalesce(func.sum(cast(both.c.agrees, Integer)), 0))
            .select_from(both)
        ).one()  # fmt: skip
        arrival = t.arrival.c
        newest = (
            select(arrival.sha256, func.max(arrival.id).label("picture"))
            .where(arrival.deleted_ms.is_(None), *visible(principal))
            .group_by(arrival.sha256)
            .subquery()
        )
        rows = connection.execute(
            select(both, newest.c.picture)
            .join(newest, newest.c.sha256 == both.c.sha256)
            .where(both.c.agrees.is_(False))
            .order_by(newest.c.picture.desc(), both.c.frame)
            .limit(_MOST_CHANGED)
        ).all()
    return Comparison(pictures=pictures, agree=agree, changed=[_change(row) for row in rows])


@router.post(
    "/{number}/promote", status_code=204, responses=responses(401, 403, 404, 409, 422),
    response_class=Response,
)  # fmt: skip
def promote(request: Request, number: Number, principal: Admin) -> Response:
    """Make an engine the active one, which judges new and waiting pictures.

    Pictures that it has judged show its results; others keep those of the previous engine, which
    is retired and can be promoted again.
    """
    try:
        _engines(service_of(request)).promote(number, principal.name)
    except LookupError as error:
        raise _missing(number) from error
    except (FxpipeError, OSError) as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    return Response(status_code=204)


@router.post(
    "/{number}/retire", status_code=204, responses=responses(401, 403, 404, 409, 422),
    response_class=Response,
)  # fmt: skip
def retire(request: Request, number: Number, principal: Admin) -> Response:
    """Stop a candidate; its results remain."""
    try:
        _engines(service_of(request)).retire(number, principal.name)
    except LookupError as error:
        raise _missing(number) from error
    except EngineStateError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    return Response(status_code=204)


def _engines(service: Service) -> Engines:
    if service.engines is None:
        raise ProblemError(
            HTTPStatus.CONFLICT,
            "this process does not judge, expected a process with the role work",
        )
    return service.engines


def _missing(number: int) -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, f"found no engine {number}")


def _infos(connection: Connection, service: Service) -> list[EngineInfo]:
    job = t.job.c
    counts = {
        (row.engine_id, row.state): row.number
        for row in connection.execute(
            select(job.engine_id, job.state, func.count().label("number")).group_by(
                job.engine_id, job.state
            )
        )
    }
    loaded = frozenset() if service.engines is None else service.engines.loaded
    return [
        EngineInfo(
            id=row.id, digest=row.digest, weights=row.weights, version=row.version,
            state=row.state, created=row.created_ms, judged=counts.get((row.id, "done"), 0),
            waiting=counts.get((row.id, "waiting"), 0), loaded=row.id in loaded,
        )
        for row in connection.execute(select(t.engine).order_by(t.engine.c.id))
    ]  # fmt: skip


def _change(row: Row[Any]) -> Change:
    return Change(
        picture=row.picture, frame=None if row.frame < 0 else row.frame,
        before=row.before_answer, after=row.after_answer, region_before=row.before_region,
        region_after=row.after_region, probability_before=row.before_probability,
        probability_after=row.after_probability,
    )  # fmt: skip
