"""Files of the page: ``/`` and ``/static``, which are public and contain no patient data."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files

import numpy as np
from fastapi import APIRouter, Request, Response

from ...domain import REGIONS
from ...heatmap import coloured
from ...report.page_row import URGENCY
from .problems import ProblemError, responses
from .security import service_of

router = APIRouter(include_in_schema=False)

_MEDIA = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_OF_REPORT = ("dom.js", "bars.js", "layers.js")
"""Modules shared with the report."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


@cache
def _files() -> dict[str, _File]:
    """All files of the page by name."""
    own = [part for part in files("pipeline.service").joinpath("page").iterdir() if part.is_file()]
    shared = [files("pipeline.report").joinpath("page", name) for name in _OF_REPORT]
    found = {}
    for part in (*own, *shared):
        media = _MEDIA.get("." + part.name.rpartition(".")[2])
        if media is not None:
            found[part.name] = _File(part.read_bytes(), media)
    return found


@router.get("/")
def index(request: Request) -> Response:
    """The page."""
    return _answer(request, _files()["index.html"])


@router.get("/static/facts.json")
def facts(request: Request) -> Response:
    """Constants for the page: answers, regions, heatmap colours."""
    run = service_of(request).config.run
    ramp = np.linspace(0.0, 1.0, 256, dtype=np.float32)[None]
    content = {
        "urgency": URGENCY,
        "regions": REGIONS,
        "opacity": run.opacity,
        "contour": run.contour,
        "colours": base64.b64encode(coloured(ramp, 1.0)[..., :3].tobytes()).decode("ascii"),
    }
    return _answer(request, _File(json.dumps(content).encode(), _MEDIA[".json"]))


@router.get("/static/{name}", responses=responses(404))
def static(request: Request, name: str) -> Response:
    """A file of the page."""
    found = _files().get(name)
    if found is None or name == "index.html":
        raise ProblemError(HTTPStatus.NOT_FOUND, "found no such file")
    return _answer(request, found)


def _answer(request: Request, file: _File) -> Response:
    """The file, or 304 if unchanged; browsers revalidate on each load, to detect updates."""
    headers = {"Cache-Control": "no-cache", "ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media, headers=headers)
