"""``/session``, ``/setup`` and ``/tokens``: logins and tokens."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy import select, update
from starlette.concurrency import run_in_threadpool

from .. import accounts, audit_log
from .. import tables as t
from ..accounts import Principal
from ..database import now_ms
from .models import Login, Setup, Token, TokenRequest, Who
from .problems import ProblemError, responses
from .security import COOKIE, LoginLimit, allow, refuse_other_sites, service_of

router = APIRouter(tags=["access"])


@router.post("/setup", status_code=201, response_model=Who, responses=responses(403, 422, 429))
async def set_up(request: Request, response: Response, body: Setup) -> Who:
    """Create the first administrator with the printed one-time code."""
    refuse_other_sites(request)
    service = service_of(request)
    limit: LoginLimit = request.app.state.login_limit
    limit.check("setup")
    user = await run_in_threadpool(
        service.database.write,
        lambda c: accounts.use_setup_code(c, body.code, body.name, body.password),
    )
    if user is None:
        limit.failed("setup")
        raise ProblemError(HTTPStatus.FORBIDDEN, "the set-up code is wrong or was already used")
    service.setup_code = None
    return await _logged_in(request, response, user)


@router.post("/session", response_model=Who, responses=responses(401, 403, 422, 429))
async def log_in(request: Request, response: Response, body: Login) -> Who:
    """Log in; the cookie is valid until logout or idle timeout."""
    refuse_other_sites(request)
    service = service_of(request)
    limit: LoginLimit = request.app.state.login_limit
    address = request.client.host if request.client else ""
    keys = (f"name {body.name}", f"address {address}")
    limit.check(*keys)

    def check() -> int | None:
        with service.database.read() as connection:
            return accounts.check_password(connection, body.name, body.password)

    user = await run_in_threadpool(check)
    if user is None:
        limit.failed(*keys)
        raise ProblemError(HTTPStatus.UNAUTHORIZED, "name or password is wrong")
    limit.succeeded(keys[0])
    if secret := request.cookies.get(COOKIE):
        await run_in_threadpool(service.database.write, lambda c: accounts.log_out(c, secret))
    return await _logged_in(request, response, user)


@router.get("/session", response_model=Who, responses=responses(401))
def who(principal: Annotated[Principal, Depends(allow("sender", "reader", "auditor"))]) -> Who:
    """The logged-in user."""
    return Who(name=principal.name, role=principal.role, blind=principal.blind)


@router.delete("/session", status_code=204, responses=responses(401, 403), response_class=Response)
def log_out(
    request: Request, _: Annotated[Principal, Depends(allow("sender", "reader", "auditor"))]
) -> Response:
    """Log out."""
    secret = request.cookies.get(COOKIE, "")
    service_of(request).database.write(lambda c: accounts.log_out(c, secret))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response


@router.get("/tokens", response_model=list[Token], responses=responses(401, 403))
def list_tokens(request: Request, _: Annotated[Principal, Depends(allow())]) -> list[Token]:
    """All tokens, without their secrets."""
    with service_of(request).database.read() as connection:
        rows = connection.execute(select(t.token).order_by(t.token.c.id)).all()
    return [
        Token(id=r.id, name=r.name, role=r.role, created=r.created_ms, revoked=r.revoked_ms)
        for r in rows
    ]


@router.post("/tokens", status_code=201, response_model=Token, responses=responses(401, 403, 422))
def create_token(
    request: Request, body: TokenRequest, principal: Annotated[Principal, Depends(allow())]
) -> Token:
    """Create a token for a program; only this response contains the secret."""
    number, secret = service_of(request).database.write(
        lambda c: accounts.new_token(c, body.name, body.role, principal.name)
    )
    return Token(
        id=number, name=body.name, role=body.role, created=now_ms(), revoked=None, secret=secret
    )


@router.delete(
    "/tokens/{number}", status_code=204, responses=responses(401, 403, 404, 422),
    response_class=Response,
)  # fmt: skip
def revoke_token(
    request: Request,
    number: Annotated[int, Path(ge=1, le=2**53)],
    principal: Annotated[Principal, Depends(allow())],
) -> Response:
    """Revoke a token."""

    def revoke(connection: object) -> bool:
        found = connection.execute(  # type: ignore[attr-defined]
            update(t.token)
            .where(t.token.c.id == number, t.token.c.revoked_ms.is_(None))
            .values(revoked_ms=now_ms())
        ).rowcount
        if found:
            audit_log.append(connection, principal.name, "revoke token", f"token/{number}")  # type: ignore[arg-type]
        return bool(found)

    if not service_of(request).database.write(revoke):
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no valid token {number}")
    return Response(status_code=204)


async def _logged_in(request: Request, response: Response, user: int) -> Who:
    service = service_of(request)
    secret = await run_in_threadpool(service.database.write, lambda c: accounts.log_in(c, user))
    response.set_cookie(
        COOKIE, secret, httponly=True, samesite="strict", path="/",
        secure=request.url.scheme == "https",
    )  # fmt: skip

    def read() -> Who:
        with service.database.read() as connection:
            row = connection.execute(select(t.user).where(t.user.c.id == user)).one()
        return Who(name=row.name, role=row.role, blind=row.blind)

    return await run_in_threadpool(read)
