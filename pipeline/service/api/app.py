"""The web application of a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ... import version
from ..application import Service
from . import (
    audit,
    dicomweb_query,
    dicomweb_retrieve,
    dicomweb_store,
    engines,
    events,
    exports,
    frames,
    health,
    jobs,
    metrics,
    outbox,
    page,
    peers,
    pictures,
    quality,
    reviews,
    rules,
    session,
    studies,
    users,
)  # fmt: skip
from .problems import add_handlers
from .security import LoginLimit, SecurityHeaders

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def create_app(service: Service, hosts: tuple[str, ...] = LOOPBACK) -> FastAPI:
    """The application.

    Args:
        service: An open service.
        hosts: Accepted names in the Host header; ``*`` for all.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.bodies = asyncio.Semaphore(service.config.most_bodies)
        yield
        app.state.stopping = True

    app = FastAPI(
        title="fxpipe", version=version(), lifespan=lifespan, openapi_url="/openapi.json",
        docs_url=None, redoc_url=None,
        description="Fracture detection in radiographs: a second reader for research.",
    )  # fmt: skip
    app.state.service, app.state.stopping = service, False
    app.state.login_limit = LoginLimit()
    add_handlers(app)
    api = APIRouter(prefix="/api/v1")
    for module in (
        pictures, frames, studies, reviews, exports, quality, jobs, engines, rules, users, audit,
        session, events, peers, outbox,
    ):  # fmt: skip
        api.include_router(module.router)
    app.include_router(api)
    dicomweb = APIRouter(prefix="/dicom-web")
    for module in (dicomweb_store, dicomweb_query, dicomweb_retrieve):
        dicomweb.include_router(module.router)
    app.include_router(dicomweb)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(page.router)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts], www_redirect=False)
    app.add_middleware(SecurityHeaders)
    return app
