"""A service on tiny weights inside the test's process, and clients of every role."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bundles import paint, write_bundles
from factories import raster
from fastapi.testclient import TestClient

from pipeline.config import RunConfig
from pipeline.service import accounts
from pipeline.service.api.app import create_app
from pipeline.service.application import Service, opened
from pipeline.service.settings import ROLES, ServiceConfig

PASSWORD = "correct horse battery"
WAIT_S = 60.0
RUN = RunConfig(workers=1, isolate=False, device="cpu")


@contextmanager
def tiny_service(folder: Path, weights: Path | None = None, **settings: Any) -> Iterator[Service]:
    """An open service with a user for each role, whose name is the role."""
    weights = weights or write_bundles(folder / "weights")
    config = ServiceConfig(run=RUN, reserve_bytes=0, **settings)
    with opened(folder / "data", weights, config) as service:
        for role in ROLES:
            service.database.write(
                lambda c, role=role: (
                    accounts.needs_setup(c) or None,
                    _known(c, role) or accounts.add_user(c, role, role, PASSWORD, "test"),
                )
            )
        yield service


def _known(connection: Any, name: str) -> bool:
    return accounts.check_password(connection, name, PASSWORD) is not None


class Client(TestClient):
    """A logged-in client whose requests come from the service's own page."""

    def __init__(self, service: Service, name: str = "") -> None:
        super().__init__(
            create_app(service), base_url="http://localhost/api/v1", raise_server_exceptions=False,
            headers={"Sec-Fetch-Site": "same-origin"},
        )  # fmt: skip
        self.service = service
        if name:
            with service.database.read() as connection:
                number = accounts.check_password(connection, name, PASSWORD)
            assert number is not None
            self.cookies.set(
                "fxpipe_session", service.database.write(lambda c: accounts.log_in(c, number))
            )

    def send_file(self, content: bytes, name: str = "picture.png", **headers: str) -> int:
        """Upload a file; its number."""
        answer = self.post(
            "/pictures", content=content,
            headers={"Content-Disposition": f'attachment; filename="{name}"', **headers},
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def judged(self, picture: int) -> dict[str, Any]:
        """A picture, as soon as it has results."""
        deadline = time.monotonic() + WAIT_S
        while True:
            body = self.get(f"/pictures/{picture}").json()
            if body["results"]:
                return dict(body)
            assert time.monotonic() < deadline, body
            time.sleep(0.02)


def hand(fracture: float = 0.9, region: float = 0.9, size_px: int = 32, strange: float = 0.1) -> bytes:
    """A PNG file of a hand; ``fracture`` and ``region`` are the grey values of its cells."""
    return raster(paint({"hand": region}, {"hand": fracture}, size_px, strange), "PNG")


POSITIVE, NEGATIVE, UNCERTAIN = hand(0.9), hand(0.1), hand(0.48)
UNSUPPORTED = hand(0.9, region=0.1)
