"""A service on tiny weights with clients of every role."""

from __future__ import annotations

import pytest
from tiny_service import Client, tiny_service


@pytest.fixture
def service(tmp_path):
    """A fresh service."""
    with tiny_service(tmp_path) as opened:
        yield opened


@pytest.fixture
def client(service):
    """Makes logged-in clients by role."""
    return lambda role="": Client(service, role)


@pytest.fixture
def admin(client):
    return client("admin")


@pytest.fixture
def reader(client):
    return client("reader")
