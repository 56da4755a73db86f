"""Authentication, roles, protection against cross-site requests, and response headers."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import accounts
from ..accounts import Principal
from ..application import Service
from ..database import now_ms
from .problems import ProblemError

T = TypeVar("T")

COOKIE = "fxpipe_session"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_TOUCH_MS = 60_000
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; "
    "style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_FAILURES, _WINDOW_S = 10, 900.0


def service_of(request: Request) -> Service:
    """The service of an application."""
    service: Service = request.app.state.service
    return service


async def principal_of(request: Request) -> Principal:
    """The user or program that makes a request, by bearer token or session cookie.

    Raises:
        ProblemError: 401 without a valid login, 403 for a request from another site.
    """
    service = service_of(request)
    header = request.headers.get("authorization", "")
    if header:
        scheme, _, secret = header.partition(" ")
        principal = (
            await run_in_threadpool(_by_token, service, secret.strip())
            if scheme.lower() == "bearer"
            else None
        )
        if principal is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED, "the token is not valid", {"WWW-Authenticate": "Bearer"}
            )
        return principal
    secret = request.cookies.get(COOKIE, "")
    principal = await run_in_threadpool(_by_session, service, secret) if secret else None
    if principal is None:
        raise ProblemError(
            HTTPStatus.UNAUTHORIZED, "log in, or send a bearer token",
            {"WWW-Authenticate": "Bearer"},
        )  # fmt: skip
    refuse_other_sites(request)
    return principal


_ROLES: dict[Any, tuple[str, ...]] = {}
"""Roles by dependency, used for the role matrix of the tests."""


def allow(*roles: str) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency that admits some roles; administrators are always admitted."""

    async def check(request: Request) -> Principal:
        principal = await principal_of(request)
        if principal.role not in (*roles, "admin"):
            raise ProblemError(
                HTTPStatus.FORBIDDEN, f"found role {principal.role}, expected {', '.join(roles)}"
            )
        return principal

    _ROLES[check] = (*roles, "admin")
    return check


def with_roles(*roles: str) -> Callable[[T], T]:
    """Declare the roles of a dependency that checks them itself."""

    def note(dependency: T) -> T:
        _ROLES[dependency] = (*roles, "admin")
        return dependency

    return note


def refuse_other_sites(request: Request) -> None:
    """Refuse changing requests from pages of other sites.

    Raises:
        ProblemError: 403.
    """
    if request.method in _SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    same = site == "same-origin" or (
        site is None and origin is not None and urlsplit(origin).netloc == request.headers["host"]
    )
    if not same:
        raise ProblemError(HTTPStatus.FORBIDDEN, "the request comes from another site")


def _by_token(service: Service, secret: str) -> Principal | None:
    with service.database.read() as connection:
        return accounts.by_token(connection, secret)


def _by_session(service: Service, secret: str) -> Principal | None:
    idle_ms, total_ms = int(service.config.idle_s * 1000), int(service.config.session_s * 1000)
    with service.database.read() as connection:
        found = accounts.by_session(connection, secret, idle_ms, total_ms)
    if found is None:
        return None
    principal, seen_ms = found
    if now_ms() - seen_ms > min(_TOUCH_MS, idle_ms // 4):
        service.database.submit(lambda c: accounts.touch(c, secret))
    return principal


class LoginLimit:
    """Limits failed logins by account and by client address."""

    def __init__(self) -> None:
        self._failures: dict[str, deque[float]] = defaultdict(deque)

    def check(self, *keys: str) -> None:
        """Refuse further attempts after too many failures.

        Raises:
            ProblemError: 429.
        """
        now = time.monotonic()
        for key in keys:
            failures = self._failures.get(key)
            while failures and failures[0] < now - _WINDOW_S:
                failures.popleft()
            if failures is not None and not failures:
                del self._failures[key]
            elif failures and len(failures) >= _FAILURES:
                wait_s = int(failures[0] + _WINDOW_S - now) + 1
                raise ProblemError(
                    HTTPStatus.TOO_MANY_REQUESTS, "too many failed logins; wait",
                    {"Retry-After": str(wait_s)},
                )  # fmt: skip

    def failed(self, *keys: str) -> None:
        """Count a failed attempt."""
        for key in keys:
            self._failures[key].append(time.monotonic())

    def succeeded(self, *keys: str) -> None:
        """Reset the failures of an account."""
        for key in keys:
            self._failures.pop(key, None)


class SecurityHeaders:
    """ASGI middleware that adds security headers, and prevents caching of patient data."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = dict(_HEADERS)
                extra["cache-control"] = "no-store"
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in extra.items()
                        if name.encode() not in present
                    ),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def roles_of(route: Any) -> tuple[str, ...] | None:
    """Roles that a route admits; None for a public route."""
    for dependency in route.dependant.dependencies:
        if dependency.call in _ROLES:
            return _ROLES[dependency.call]
    return None
