"""A service with tiny weights in the test process, and clients for every role."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from argon2 import PasswordHasher
from bundles import paint
from factories import raster
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Connection
from tiny_networks import write_bundles

from pipeline.config import RunConfig
from pipeline.service import accounts
from pipeline.service.api.app import create_app
from pipeline.service.api.files import attachment
from pipeline.service.application import Service, opened
from pipeline.service.settings import ROLES, ServiceConfig

PASSWORD = "correct horse battery"
WAIT_S = 120.0
RUN = RunConfig(workers=1, isolate=False, device="cpu")
CODES = itertools.count(1)


@contextmanager
def tiny_service(folder: Path, weights: Path | None = None, **settings: Any) -> Iterator[FastAPI]:
    """The application of an open service, with a user for each role, named like the role."""
    weights = weights or write_bundles(folder / "weights")
    config = ServiceConfig(run=RUN, reserve_bytes=0, **settings)
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with (
        patch.object(accounts, "_HASHER", quick),
        opened(folder / "data", weights, config) as service,
    ):
        for role in ROLES:
            with service.database.read() as connection:
                if accounts.check_password(connection, role, PASSWORD) is not None:
                    continue
            service.database.write(partial(_add_user, role))
        app = create_app(service)
        with TestClient(app, base_url="http://localhost"):  # runs startup and shutdown
            yield app


def _add_user(role: str, connection: Connection) -> None:
    accounts.add_user(connection, role, role, PASSWORD, "test")


class Client(TestClient):
    """A client that sends requests like the page of the service.

    Args:
        app: The application.
        user: Name of a logged-in user; empty for none.
    """

    def __init__(self, app: FastAPI, user: str = "") -> None:
        super().__init__(
            app, base_url="http://localhost/api/v1", raise_server_exceptions=False,
            headers={"Sec-Fetch-Site": "same-origin"},
        )  # fmt: skip
        self.service: Service = app.state.service
        if user:
            with self.service.database.read() as connection:
                number = accounts.check_password(connection, user, PASSWORD)
            assert number is not None
            secret = self.service.database.write(lambda c: accounts.log_in(c, number))
            self.cookies.set("fxpipe_session", secret)

    def send_file(self, content: bytes, name: str = "picture.png", **headers: str) -> int:
        """Upload a file; its number."""
        answer = self.post(
            "/pictures", content=content,
            headers={**attachment(name), **headers},
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def judged(self, content: bytes, name: str = "picture.png") -> dict[str, Any]:
        """Upload a file; the picture, as soon as it has results."""
        number = self.send_file(content, name)
        return until(lambda: self.get(f"/pictures/{number}").json(), lambda body: body["results"])


def until(read: Callable[[], Any], ready: Callable[[Any], Any]) -> Any:
    """The first value that is ready."""
    deadline = time.monotonic() + WAIT_S
    while not ready(value := read()):
        assert time.monotonic() < deadline, value
        time.sleep(0.02)
    return value


def hand(fracture: float = 0.9, region: float = 0.9) -> bytes:
    """A PNG file of a hand, different each time.

    Args:
        fracture: Grey value of its cell; the answer is positive from 0.5, uncertain from about
            0.46.
        region: Grey value of its cell; unsupported below 0.5.
    """
    strange = (next(CODES) % 128) / 255
    return raster(paint({"hand": region}, {"hand": fracture}, strange=strange), "PNG")


def positive() -> bytes:
    """A new picture with a positive answer."""
    return hand(0.9)


def negative() -> bytes:
    """A new picture with a negative answer."""
    return hand(0.1)


def uncertain() -> bytes:
    """A new picture with an uncertain answer."""
    return hand(0.48)


def unsupported() -> bytes:
    """A new picture without a supported region."""
    return hand(0.9, region=0.1)
