"""Every role, resource and method: admitted, or refused with 401 or 403."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute
from tiny_service import Client, tiny_service

from pipeline.service.api.security import roles_of
from pipeline.service.settings import ROLES

PUBLIC = {("POST", "/api/v1/session"), ("POST", "/api/v1/setup")}
"""Operations that need no login, but a password or a code."""
EXPECTED = {
    "sender": {
        ("POST", "/pictures"), ("GET", "/pictures/{number}"), ("GET", "/session"),
        ("DELETE", "/session"), ("PATCH", "/session"),
    },
    "reader": {
        ("POST", "/pictures"), ("GET", "/pictures"), ("GET", "/pictures/{number}"),
        ("GET", "/pictures/{number}/frames/{frame}/view"),
        ("GET", "/pictures/{number}/frames/{frame}/thumb"),
        ("GET", "/pictures/{number}/frames/{frame}/heatmap"),
        ("GET", "/pictures/{number}/frames/{frame}/pixels"),
        ("GET", "/pictures/{number}/content"), ("GET", "/studies"), ("GET", "/studies/{number}"),
        ("GET", "/results/{number}/reviews"), ("POST", "/results/{number}/reviews"),
        ("DELETE", "/reviews/{number}"), ("GET", "/reviews"), ("GET", "/exports/{kind}"),
        ("GET", "/quality"), ("GET", "/engines"), ("GET", "/events"), ("GET", "/session"),
        ("DELETE", "/session"), ("PATCH", "/session"),
    },
    "auditor": {
        ("GET", "/exports/{kind}"), ("GET", "/quality"), ("GET", "/engines"), ("GET", "/audit"),
        ("GET", "/events"), ("GET", "/session"), ("DELETE", "/session"), ("PATCH", "/session"),
    },
}  # fmt: skip
"""What each role may do, apart from administrators, who may do everything."""
OWNED = (
    "/pictures", "/studies", "/results", "/reviews", "/exports", "/quality", "/jobs", "/engines",
    "/rules", "/users", "/audit", "/session", "/setup", "/tokens", "/events",
)  # fmt: skip
VALUES = {"{number}": "999999", "{frame}": "0", "{kind}": "csv"}


def operations(app):
    """Method, path and route of each operation."""
    for route in app.routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None and not isinstance(route, APIRoute):
            continue
        for one in [route] if contexts is None else contexts():
            for method in one.methods:
                yield method, one.path, one


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with tiny_service(tmp_path_factory.mktemp("service")) as opened:
        opened.state.stopping = True  # streams of events end at once
        yield opened


def test_document_lists_every_operation_with_its_roles(app):
    listed = {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    routes = {(method, path): one for method, path, one in operations(app)}
    assert listed == set(routes)
    api = {key for key in routes if key[1].startswith("/api/v1/")}
    assert len(api) > 40
    assert {key for key in api if roles_of(routes[key]) is None} == PUBLIC


def test_roles_are_those_that_were_decided(app):
    """A route that admits another role must be added here on purpose."""
    admitted = {role: set() for role in ROLES}
    for method, path, one in operations(app):
        short = path.removeprefix("/api/v1")
        if short != path and short.startswith(OWNED):
            for role in roles_of(one) or ():
                admitted[role].add((method, short))
    assert {role: admitted[role] for role in EXPECTED} == EXPECTED
    assert set().union(*EXPECTED.values()) < admitted["admin"]


@pytest.mark.parametrize("role", ["", *ROLES])
def test_role_is_admitted_or_refused(app, role):
    """The answer to a request with an unknown number or an empty body."""
    faults = []
    for method, path, one in operations(app):
        roles = roles_of(one)
        if roles is None:
            continue
        for name, value in VALUES.items():
            path = path.replace(name, value)
        client = Client(app, role)  # a fresh login, because one of the requests logs out
        client.base_url = "http://localhost"
        status = client.request(method, path).status_code
        expected = "401" if not role else "ok" if role in roles else "403"
        actual = str(status) if status in (401, 403) else "ok" if status < 500 else "fault"
        if actual != expected:
            faults.append((method, path, status, expected))
    assert faults == []


def test_request_of_another_site_is_refused(app):
    client = Client(app, "admin")
    client.headers["Sec-Fetch-Site"] = "cross-site"
    client.base_url = "http://localhost"
    statuses = set()
    for method, path, one in operations(app):
        if method != "GET" and roles_of(one) is not None:
            for name, value in VALUES.items():
                path = path.replace(name, value)
            statuses.add(client.request(method, path).status_code)
    assert statuses == {403}
