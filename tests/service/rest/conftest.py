"""A service with tiny weights, and clients for every role."""

from __future__ import annotations

import pytest
from tiny_service import Client, tiny_service


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The application of a service for all tests of a module."""
    with tiny_service(tmp_path_factory.mktemp("service")) as opened:
        yield opened


@pytest.fixture
def service(app):
    return app.state.service


@pytest.fixture
def client(app):
    """Makes clients by the role of their user."""
    return lambda role="": Client(app, role)


@pytest.fixture
def admin(client):
    return client("admin")


@pytest.fixture
def reader(client):
    return client("reader")
