"""``/users``: user accounts, and the account of the logged-in user."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, func, select, update

from .. import accounts, audit_log
from .. import tables as t
from ..accounts import Principal
from .etags import IfMatch, check_match, etag
from .links import links
from .models import Body, Name, Password, Role, Who
from .problems import ProblemError, responses
from .security import COOKIE, LoginLimit, allow, service_of

router = APIRouter(tags=["access"])

Number = Annotated[int, Path(ge=1, le=2**53)]
Admin = Annotated[Principal, Depends(allow())]


class UserRequest(Body):
    """A user to create."""

    name: Name
    role: Role
    password: Password
    blind: bool = False


class UserChange(Body):
    """Changes of a user; absent fields stay unchanged."""

    role: Role | None = None
    active: bool | None = None
    blind: bool | None = None
    password: Password | None = None


class User(BaseModel):
    """A person who may log in.

    Attributes:
        id: Number of the user.
        name: Login name.
        role: Role of the user.
        active: Whether the user may log in.
        blind: Whether fxpipe's answer is hidden until the user has stored a review.
        created: Milliseconds since 1970, UTC.
    """

    id: int
    name: str
    role: Role
    active: bool
    blind: bool
    created: int


class PasswordChange(Body):
    """The current and the new password."""

    old: Annotated[str, Field(max_length=256)]
    new: Password


class OwnChange(Body):
    """Changes of the user's own account; absent fields stay unchanged."""

    password: PasswordChange | None = None
    blind: bool | None = None


@router.get("/users", response_model=list[User], responses=responses(401, 403))
def list_users(request: Request, _: Admin) -> list[User]:
    """All users, oldest first."""
    with service_of(request).database.read() as connection:
        return [_user(row) for row in connection.execute(select(t.user).order_by(t.user.c.id))]


@router.post(
    "/users",
    status_code=201,
    response_model=User,
    responses=links(201, "/id", "GET /users/{number}", "PATCH /users/{number}")
    | responses(401, 403, 409, 422),
)
def add_user(request: Request, response: Response, body: UserRequest, principal: Admin) -> User:
    """Create a user; 409 if the name is in use."""

    def add(connection: Connection) -> User:
        if connection.scalar(select(t.user.c.id).where(t.user.c.name == body.name)) is not None:
            raise ProblemError(HTTPStatus.CONFLICT, f"found an existing user {body.name!r}")
        number = accounts.add_user(
            connection, body.name, body.role, body.password, principal.name, body.blind
        )
        return _find(connection, number)

    user = service_of(request).database.write(add)
    response.headers["Location"] = f"/api/v1/users/{user.id}"
    response.headers["ETag"] = etag(user)
    return user


@router.get("/users/{number}", response_model=User, responses=responses(401, 403, 404, 422))
def read_user(request: Request, response: Response, number: Number, _: Admin) -> User:
    """A user, with an ETag for changes."""
    with service_of(request).database.read() as connection:
        user = _find(connection, number)
    response.headers["ETag"] = etag(user)
    return user


@router.patch(
    "/users/{number}", response_model=User, responses=responses(401, 403, 404, 409, 412, 422)
)
def change_user(
    request: Request, response: Response, number: Number, body: UserChange, principal: Admin,
    if_match: IfMatch = None,
) -> User:  # fmt: skip
    """Change a user; with If-Match only if the user is unchanged since it was read.

    A change of role or password, and deactivation, end the user's sessions. 409: the change would
    leave no active administrator.
    """
    values = body.model_dump(exclude_none=True)
    password = values.pop("password", None)
    if password is not None:
        values["password"] = accounts.hashed(password)

    def change(connection: Connection) -> User:
        before = _find(connection, number)
        check_match(if_match, before)
        if not values:
            return before
        loses = values.get("role", "admin") != "admin" or values.get("active") is False
        if loses and before.role == "admin" and before.active and _admins(connection) == 1:
            raise ProblemError(HTTPStatus.CONFLICT, "expected at least one active administrator")
        connection.execute(update(t.user).where(t.user.c.id == number).values(**values))
        if values.keys() & {"password", "role"} or values.get("active") is False:
            accounts.log_out_everywhere(connection, number)
        audit_log.append(
            connection, principal.name, "change user", f"user/{number}",
            {name: value for name, value in values.items() if name != "password"}
            | ({"password": "changed"} if password is not None else {}),
        )  # fmt: skip
        return _find(connection, number)

    user = service_of(request).database.write(change)
    response.headers["ETag"] = etag(user)
    return user


@router.patch("/session", response_model=Who, responses=responses(401, 403, 422, 429))
def change_own(
    request: Request, body: OwnChange,
    principal: Annotated[Principal, Depends(allow("sender", "reader", "auditor"))],
) -> Who:  # fmt: skip
    """Change your own password, which ends all other sessions of the user, or the blind first read.

    Everyone may switch blind reading on; only an administrator may switch it off. 403: not allowed,
    the current password is wrong, or a token was used.
    """
    if principal.user is None:
        raise ProblemError(HTTPStatus.FORBIDDEN, "found a token, expected the login of a user")
    service, user = service_of(request), principal.user
    blind = principal.blind if body.blind is None else body.blind
    if principal.blind and not blind and principal.role != "admin":
        raise ProblemError(
            HTTPStatus.FORBIDDEN, "only an administrator may switch blind reading off"
        )
    values: dict[str, Any] = {} if blind == principal.blind else {"blind": blind}
    if body.password is not None:
        limit: LoginLimit = request.app.state.login_limit
        key = f"name {principal.name}"
        limit.check(key)
        with service.database.read() as connection:
            known = accounts.check_password(connection, principal.name, body.password.old)
        if known is None:
            limit.failed(key)
            raise ProblemError(HTTPStatus.FORBIDDEN, "the current password is wrong")
        values["password"] = accounts.hashed(body.password.new)
    secret = request.cookies.get(COOKIE, "")

    def change(connection: Connection) -> None:
        connection.execute(update(t.user).where(t.user.c.id == user).values(**values))
        if "password" in values:
            accounts.log_out_everywhere(connection, user, secret)
        audit_log.append(
            connection, principal.name, "change own login", f"user/{user}",
            {"changed": sorted(values)},
        )  # fmt: skip

    if values:
        service.database.write(change)
    return Who(name=principal.name, role=principal.role, blind=blind)


def _find(connection: Connection, number: int) -> User:
    row = connection.execute(select(t.user).where(t.user.c.id == number)).first()
    if row is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no user {number}")
    return _user(row)


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id, name=row.name, role=row.role, active=row.active, blind=row.blind,
        created=row.created_ms,
    )  # fmt: skip


def _admins(connection: Connection) -> int:
    admins = select(func.count()).where(t.user.c.role == "admin", t.user.c.active)
    return int(connection.scalar(admins) or 0)
