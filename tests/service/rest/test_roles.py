"""Every role, resource and method: admitted, or refused with 401 or 403."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute
from tiny_service import Client, tiny_service

from pipeline.service.api.security import roles_of
from pipeline.service.settings import ROLES

PAGE = {("GET", "/"), ("GET", "/static/facts.json"), ("GET", "/static/{name}")}
"""Files of the page, which are not in the OpenAPI document."""
PUBLIC = {
    ("POST", "/api/v1/session"), ("POST", "/api/v1/setup"), ("GET", "/livez"), ("GET", "/readyz"),
    *PAGE,
}  # fmt: skip
"""Operations without a login; the first two require a password or a code."""
OWN = {("GET", "/session"), ("DELETE", "/session"), ("PATCH", "/session")}
STUDY = "/dicom-web/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"
EXPECTED = {
    "sender": {
        ("POST", "/pictures"), ("GET", "/pictures/{number}"), ("POST", "/dicom-web/studies"),
        ("POST", STUDY), *OWN,
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
        ("GET", "/quality"), ("GET", "/engines"), ("GET", "/events"), ("GET", "/outbox"),
        ("GET", "/dicom-web/studies"), ("GET", "/dicom-web/series"),
        ("GET", "/dicom-web/instances"), ("GET", STUDY), ("GET", STUDY + "/series"),
        ("GET", STUDY + "/instances"), ("GET", STUDY + "/metadata"), ("GET", SERIES),
        ("GET", SERIES + "/instances"), ("GET", SERIES + "/metadata"), ("GET", INSTANCE),
        ("GET", INSTANCE + "/metadata"), ("GET", INSTANCE + "/rendered"),
        ("GET", INSTANCE + "/frames/{frames}"), ("GET", INSTANCE + "/frames/{frame}/rendered"),
        *OWN,
    },
    "auditor": {
        ("GET", "/exports/{kind}"), ("GET", "/quality"), ("GET", "/engines"), ("GET", "/audit"),
        ("GET", "/events"), ("GET", "/metrics"), *OWN,
    },
}  # fmt: skip
"""Permitted operations of each role; administrators may do everything."""
VALUES = {
    "{number}": "999999", "{kind}": "csv", "{study}": "1.2", "{series}": "1.3",
    "{instance}": "1.4", "{frames}": "1", "{frame}": "0",
}  # fmt: skip


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
        opened.state.stopping = True  # event streams end immediately
        yield opened


def test_document_lists_every_operation_with_its_roles(app):
    listed = {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    routes = {(method, path): one for method, path, one in operations(app)}
    assert listed == set(routes) - PAGE
    assert len(listed) > 70
    assert {key for key in routes if roles_of(routes[key]) is None} == PUBLIC


def test_roles_match_the_permission_table(app):
    """A new route or role must be added to the table."""
    admitted: dict[str, set[tuple[str, str]]] = {role: set() for role in ROLES}
    for method, path, one in operations(app):
        for role in roles_of(one) or ():
            admitted[role].add((method, path.removeprefix("/api/v1")))
    assert {role: admitted[role] for role in EXPECTED} == EXPECTED
    assert set().union(*EXPECTED.values()) < admitted["admin"]


@pytest.mark.parametrize("role", ["", *ROLES])
def test_role_is_admitted_or_refused(app, role):
    """Status of a request with an unknown number or an empty body.

    The client address is remote, because local requests of ``/metrics`` need no login
    (test_metrics.py).
    """
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


def test_public_operations_need_no_login(app):
    client = Client(app)
    client.base_url = "http://localhost"
    paths = [path for method, path in PUBLIC if method == "GET"]
    statuses = {path: client.get(path.replace("{name}", "main.js")).status_code for path in paths}
    assert statuses == dict.fromkeys(paths, 200)


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
