"""Generated requests of every role: no internal errors, and responses match the schema."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.transport.serialization import serialize_binary
from sqlalchemy import update
from tiny_service import Client, negative, positive, tiny_service

from pipeline.service import tables as t
from pipeline.service.api.app import create_app
from pipeline.service.settings import ROLES

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance,
]  # fmt: skip
FEW = settings(
    max_examples=2, deadline=None, database=None, derandomize=True,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip


@schemathesis.serializer("multipart/related")
def related(context, value):
    """A DICOMweb message with one part."""
    part = b"--part\r\nContent-Type: application/dicom\r\n\r\n" + serialize_binary(value)
    media = 'multipart/related; type="application/dicom"; boundary=part'
    return {"data": part + b"\r\n--part--\r\n", "headers": {"Content-Type": media}}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The application with some pictures and reviews, under any host name."""
    with tiny_service(tmp_path_factory.mktemp("service")) as app:
        reader = Client(app, "reader")
        for content in (positive(), negative(), positive()[:60]):
            result = reader.judged(content)["results"][0]["id"]
            reader.post(f"/results/{result}/reviews", json={"verdict": "none"})
        yield create_app(app.state.service, ("*",))


@pytest.fixture
def log_in(served):
    """Returns the headers of a new login, also if the user was changed."""
    service = served.state.service

    def headers(role):
        own = update(t.user).where(t.user.c.name == role)
        service.database.write(
            lambda c: c.execute(own.values(role=role, active=True, blind=role == "reader"))
        )
        secret = Client(served, role).cookies["fxpipe_session"]
        return {"Cookie": f"fxpipe_session={secret}", "Sec-Fetch-Site": "same-origin"}

    return headers


@pytest.fixture
def schema(served):
    return schemathesis.openapi.from_asgi("/openapi.json", served)


def fault_of(operation, headers):
    """Fault of the responses of an operation; empty without a fault."""

    @given(case=operation.as_strategy())
    @FEW
    def run(case):
        case.validate_response(case.call(headers=headers), checks=CHECKS)

    try:
        run()
    except Exception as error:  # noqa: BLE001  (all faults are listed together)
        return f"{operation.label}: {error}"
    return ""


@pytest.mark.parametrize("role", ROLES)
def test_every_operation(schema, log_in, role):
    operations = [result.ok() for result in schema.get_all_operations()]
    finite = [one for one in operations if not one.path.endswith("/events")]
    faults = [fault_of(one, log_in(role)) for one in finite]
    assert not any(faults), "\n".join(filter(None, faults))


@pytest.mark.parametrize("role", ROLES)
def test_sequences_of_operations(schema, log_in, role):
    base: Any = schema.as_state_machine()

    class Machine(base):
        def get_call_kwargs(self, case):
            return {"headers": log_in(role)}

        def validate_response(self, response, case, additional_checks=(), **kwargs):
            case.validate_response(response, checks=CHECKS)

        def before_call(self, case):
            if case.operation.path.endswith("/events"):
                case.operation.app.state.stopping = True

    Machine.run(
        settings=settings(FEW, max_examples=3, stateful_step_count=6, phases=[Phase.generate])
    )
