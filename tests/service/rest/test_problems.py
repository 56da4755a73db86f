"""Logging of internal errors."""

from __future__ import annotations

import logging
import threading

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from tiny_service import until

from pipeline.service.api.problems import MEDIA, add_handlers, is_not_application_error


@pytest.fixture
def url():
    """Address of an application under uvicorn with a route that raises an error with a name."""
    app, router = FastAPI(), APIRouter(prefix="/api")
    add_handlers(app)

    @router.get("/patients/{name}")
    def fail(name: str):
        raise ValueError(f"found {name}")

    app.include_router(router)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started, bool)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/api/patients/DOE"
    server.should_exit = True
    thread.join()


def test_log_has_no_identifiers(url, caplog):
    log = logging.getLogger("uvicorn.error")
    log.addFilter(is_not_application_error)
    try:
        answer = httpx.get(url)
    finally:
        log.removeFilter(is_not_application_error)
    assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA)
    assert "DOE" not in caplog.text + answer.text
    assert "GET /api/patients/{name}: ValueError" in caplog.text
    assert "in fail" in caplog.text
