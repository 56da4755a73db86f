"""``/rules``: retention rules."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from .. import audit_log
from .. import tables as t
from ..accounts import Principal
from ..database import now_ms
from ..rules import expired
from .etags import IfMatch, check_match, etag
from .links import links
from .models import Body
from .problems import ProblemError, responses
from .security import allow, service_of

router = APIRouter(prefix="/rules", tags=["rules"])

Number = Annotated[int, Path(ge=1, le=2**53)]
Admin = Annotated[Principal, Depends(allow())]
Days = Annotated[int, Field(ge=1, le=36_500)]
RuleState = Literal["answered", "unsupported", "failed"]


class RuleRequest(Body):
    """A rule that deletes pictures older than ``days``, optionally of one state only."""

    days: Days
    state: RuleState | None = None


class Rule(BaseModel):
    """A retention rule.

    Attributes:
        id: Number of the rule.
        days: Age in days from which pictures are deleted.
        state: State of the pictures; null for all.
        created: Milliseconds since 1970, UTC.
    """

    id: int
    days: int
    state: RuleState | None
    created: int


class Preview(BaseModel):
    """Number of pictures that a rule would delete now."""

    pictures: int


@router.get("", response_model=list[Rule], responses=responses(401, 403))
def list_rules(request: Request, _: Admin) -> list[Rule]:
    """All rules."""
    with service_of(request).database.read() as connection:
        return [_rule(row) for row in connection.execute(select(t.rule).order_by(t.rule.c.id))]


@router.post(
    "", status_code=201, response_model=Rule,
    responses=links(
        201, "/id", "GET /rules/{number}", "PATCH /rules/{number}", "DELETE /rules/{number}"
    )
    | responses(401, 403, 422),
)  # fmt: skip
def add_rule(request: Request, response: Response, body: RuleRequest, principal: Admin) -> Rule:
    """Create a rule; pictures under a legal hold are never deleted."""

    def add(connection: Connection) -> Rule:
        key = connection.execute(
            insert(t.rule).values(**body.model_dump(), created_ms=now_ms())
        ).inserted_primary_key
        assert key is not None  # noqa: S101
        audit_log.append(
            connection, principal.name, "add rule", f"rule/{key[0]}", body.model_dump()
        )
        return _find(connection, int(key[0]))

    rule = service_of(request).database.write(add)
    response.headers["ETag"] = etag(rule)
    return rule


@router.post("/preview", response_model=Preview, responses=responses(401, 403, 422))
def preview(request: Request, body: RuleRequest, _: Admin) -> Preview:
    """Number of pictures that a rule would delete now; deletes nothing."""
    query = select(func.count()).select_from(t.arrival).where(*expired(body.days, body.state))
    with service_of(request).database.read() as connection:
        return Preview(pictures=int(connection.scalar(query) or 0))


@router.get("/{number}", response_model=Rule, responses=responses(401, 403, 404, 422))
def read_rule(request: Request, response: Response, number: Number, _: Admin) -> Rule:
    """A rule, with an ETag for changes."""
    with service_of(request).database.read() as connection:
        rule = _find(connection, number)
    response.headers["ETag"] = etag(rule)
    return rule


@router.patch("/{number}", response_model=Rule, responses=responses(401, 403, 404, 412, 422))
def change_rule(
    request: Request, response: Response, number: Number, body: RuleRequest, principal: Admin,
    if_match: IfMatch = None,
) -> Rule:  # fmt: skip
    """Change a rule; with If-Match only if it is unchanged since it was read."""

    def change(connection: Connection) -> Rule:
        check_match(if_match, _find(connection, number))
        connection.execute(update(t.rule).where(t.rule.c.id == number).values(**body.model_dump()))
        audit_log.append(
            connection, principal.name, "change rule", f"rule/{number}", body.model_dump()
        )
        return _find(connection, number)

    rule = service_of(request).database.write(change)
    response.headers["ETag"] = etag(rule)
    return rule


@router.delete(
    "/{number}", status_code=204, responses=responses(401, 403, 404, 422), response_class=Response
)
def delete_rule(request: Request, number: Number, principal: Admin) -> Response:
    """Delete a rule, but no pictures."""

    def remove(connection: Connection) -> None:
        _find(connection, number)
        connection.execute(delete(t.rule).where(t.rule.c.id == number))
        audit_log.append(connection, principal.name, "delete rule", f"rule/{number}")

    service_of(request).database.write(remove)
    return Response(status_code=204)


def _find(connection: Connection, number: int) -> Rule:
    row = connection.execute(select(t.rule).where(t.rule.c.id == number)).first()
    if row is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no rule {number}")
    return _rule(row)


def _rule(row: Row[Any]) -> Rule:
    return Rule(id=row.id, days=row.days, state=row.state, created=row.created_ms)
