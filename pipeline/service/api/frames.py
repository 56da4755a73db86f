"""``/pictures/{id}/frames`` and ``/content``: pictures, heatmaps, pixels, the file."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from io import BytesIO
from typing import Annotated, Any, BinaryIO

import numpy as np
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from PIL import Image
from pydantic import BaseModel
from sqlalchemy import Connection, Row, select

from ...domain import XrayImage
from ...errors import ImageError
from ...io import decode
from ...outcome import Status
from ...render import render
from ...report.page_row import view as jpeg_view
from ...source import NamedBytes
from .. import audit_log
from .. import tables as t
from ..accounts import Principal
from ..application import Service
from ..visibility import visible_among
from .files import attachment
from .pictures import Number, find
from .problems import ProblemError, Responses, responses
from .security import allow, service_of

router = APIRouter(prefix="/pictures/{number}", tags=["pictures"])

Frame = Annotated[int, Path(ge=0, le=2**31 - 1)]
Reader = Annotated[Principal, Depends(allow("reader"))]
_JPEG: Responses = {200: {"content": {"image/jpeg": {}}}}
_PNG: Responses = {200: {"content": {"image/png": {}}}}
_FILE: Responses = {200: {"content": {"application/octet-stream": {}}}}
_DECODING = threading.BoundedSemaphore(2)
"""Limits the memory for pictures at full bit depth."""
_PART_BYTES = 2**20


class Extent(BaseModel):
    """Size of a picture in source px."""

    height: int
    width: int


class Heatmaps(BaseModel):
    """Findings of one picture with their heatmaps.

    Attributes:
        findings: As in a result; ``layer`` contains the cells (base64 of rows x columns bytes, 255
            at the peak), their position in source px, the contour as SVG path data in source px,
            and the share of evidence that is not shown.
        picture: Size of the picture; null if it was not rendered.
    """

    findings: list[dict[str, Any]]
    picture: Extent | None


@router.get(
    "/frames/{frame}/view", response_class=Response, responses=_JPEG | responses(401, 403, 404, 422)
)
def view(request: Request, number: Number, frame: Frame, principal: Reader) -> Response:
    """The rendered picture, longest side at most 1024 px; frame 0 is the first or only frame."""
    service = service_of(request)
    with service.database.read() as connection:
        row = find(connection, number, principal)
        one = _judged(connection, row, frame)
    if "picture" not in one.row:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the picture has no view")
    content = service.views.get(row.sha256, one.frame)
    if content is None:
        content = _rendered(service, row, frame, one.frame)
    return Response(content, media_type="image/jpeg", headers=_immutable(row.sha256))


@router.get(
    "/frames/{frame}/thumb", response_class=Response,
    responses=_JPEG | responses(401, 403, 404, 422),
)  # fmt: skip
def thumb(request: Request, number: Number, frame: Frame, principal: Reader) -> Response:
    """The thumbnail, longest side at most 160 px."""
    with service_of(request).database.read() as connection:
        row = find(connection, number, principal)
        one = _judged(connection, row, frame)
    encoded = one.row.get("picture", {}).get("thumb")
    if encoded is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the picture was not rendered")
    content = base64.b64decode(encoded)
    return Response(content, media_type="image/jpeg", headers=_immutable(row.sha256))


@router.get(
    "/frames/{frame}/heatmap", response_model=Heatmaps, responses=responses(401, 403, 404, 422)
)
def heatmap(request: Request, number: Number, frame: Frame, principal: Reader) -> Heatmaps:
    """The findings with their heatmaps; 404 while the answer is hidden."""
    with service_of(request).database.read() as connection:
        row = find(connection, number, principal)
        one = _judged(connection, row, frame)
        if row.sha256 not in visible_among(connection, principal, [row.sha256]):
            raise ProblemError(HTTPStatus.NOT_FOUND, "the answer is hidden until you review it")
    size = one.row.get("picture")
    return Heatmaps(
        findings=one.row["findings"],
        picture=Extent(height=size["height"], width=size["width"]) if size else None,
    )


@router.get(
    "/frames/{frame}/pixels", response_class=Response,
    responses=_PNG | responses(401, 403, 404, 422),
)  # fmt: skip
def pixels(request: Request, number: Number, frame: Frame, principal: Reader) -> Response:
    """The picture at full resolution as 16-bit grey PNG, bone bright."""
    service = service_of(request)
    with service.database.read() as connection:
        row = find(connection, number, principal)
        one = _judged(connection, row, frame)
    if one.status == Status.FAILED:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the picture could not be read")
    with _DECODING:
        image = _decoded(service, row, frame)
        deep = np.empty(image.pixels.shape, np.uint16)
        np.rint(image.pixels * np.float32(65535), out=deep, casting="unsafe")
        file = BytesIO()
        Image.fromarray(deep).save(file, "PNG", compress_level=1)
    return Response(file.getvalue(), media_type="image/png", headers=_immutable(row.sha256))


@router.get("/content", response_class=Response, responses=_FILE | responses(401, 403, 404, 422))
def content(request: Request, number: Number, principal: Reader) -> Response:
    """The file as received."""
    service = service_of(request)

    def permit(connection: Connection) -> Row[Any]:
        row = find(connection, number, principal)
        audit_log.append(connection, principal.name, "download", f"picture/{number}")
        return row

    row = service.database.write(permit)
    try:
        file = service.blobs.path(row.sha256).open("rb")
    except OSError as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the file is missing") from error
    size = file.seek(0, 2)
    file.seek(0)
    headers = {**attachment(row.name), "Content-Length": str(size)}
    return StreamingResponse(_parts(file), media_type="application/octet-stream", headers=headers)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while part := file.read(_PART_BYTES):
            yield part


def _immutable(sha256: str) -> dict[str, str]:
    return {"Cache-Control": "private, max-age=31536000, immutable", "ETag": f'"{sha256[:16]}"'}


def _judged(connection: Connection, arrival: Row[Any], frame: int) -> Row[Any]:
    """Status and row of a frame; frame 0 of a single-frame file is stored as -1.

    Raises:
        ProblemError: 404.
    """
    row: Any = connection.execute(
        select(t.result.c.frame, t.result.c.status, t.detail.c.row)
        .join(t.detail, t.detail.c.result_id == t.result.c.id)
        .where(
            t.result.c.sha256 == arrival.sha256, t.result.c.engine_id == arrival.engine_id,
            t.result.c.frame.in_((frame, -1) if frame == 0 else (frame,)),
        )
    ).first()  # fmt: skip
    if row is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no judged frame {frame}")
    judged: Row[Any] = row
    return judged


def _rendered(service: Service, arrival: Row[Any], frame: int, stored_frame: int) -> bytes:
    """A view that is not in the cache, such as after a restoration; it is added to the cache.

    Args:
        service: An open service.
        arrival: The picture.
        frame: Index in its file.
        stored_frame: That of the result: -1 for a single picture.

    Raises:
        ProblemError: 404 if the file is gone or cannot be read.
    """
    with _DECODING:
        encoded = jpeg_view(render(_decoded(service, arrival, frame).pixels))
    service.views.put(arrival.sha256, stored_frame, encoded)
    with service.database.read() as connection:
        kept = select(t.blob.c.sha256).where(
            t.blob.c.sha256 == arrival.sha256, t.blob.c.deleted_ms.is_(None)
        )
        if connection.scalar(kept) is None:  # deleted meanwhile, perhaps before the view was added
            service.views.remove(arrival.sha256)
    return base64.b64decode(encoded)


def _decoded(service: Service, arrival: Row[Any], frame: int) -> XrayImage:
    try:
        source = NamedBytes(arrival.name or "picture", service.blobs.read(arrival.sha256))
        with closing(decode(source.content, source, arrival.sha256)) as images:
            for index, image in enumerate(images):
                if index == frame:
                    return image
    except (ImageError, OSError) as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the picture cannot be read") from error
    raise ProblemError(HTTPStatus.NOT_FOUND, f"found no frame {frame}")
