"""DICOMweb WADO-RS: files, metadata, frames and rendered pictures."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from http import HTTPStatus
from io import BytesIO
from pathlib import Path as FilePath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian
from sqlalchemy import Row, func, select
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from ...errors import ImageError
from ...io import decode
from ...io.dicom import parse
from ...io.frames import COMPRESSIONS, stored_frames
from ...io.warning_filter import quiet
from ...render import render
from .. import tables as t
from ..accounts import Principal
from ..application import Service
from ..multipart_related import content_type, encoded
from .dicomweb_store import JSON, Uid
from .problems import ProblemError, Responses, responses
from .security import allow, service_of

router = APIRouter(prefix="/studies", tags=["dicomweb"])

Reader = Annotated[Principal, Depends(allow("reader"))]
Frames = Annotated[str, Path(pattern=r"^[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}){0,99}$")]
Frame = Annotated[int, Path(ge=1, le=999_999)]
_PART = 2**20
_DICOM, _BYTES = "application/dicom", "application/octet-stream"
_IMAGES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Media types of compressed frames by transfer syntax (PS3.18, 8.7.3.3)."""


def _declared(media: str, *statuses: int) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    if media == JSON:
        schema = {"type": "array", "items": {"type": "object"}}  # type: ignore[dict-item]
    content = {media: {"schema": schema}}
    shown: Responses = {200: {"description": "The requested objects", "content": content}}
    return {
        "response_class": Response,
        "responses": responses(401, 403, 404, 422, *statuses) | shown,
    }


_FILES = _declared("multipart/related", 406)


@router.get("/{study}", **_FILES)
def study_files(request: Request, study: Uid, _: Reader) -> Response:
    """All files of a study."""
    return _files(request, study)


@router.get("/{study}/series/{series}", **_FILES)
def series_files(request: Request, study: Uid, series: Uid, _: Reader) -> Response:
    """All files of a series."""
    return _files(request, study, series)


@router.get("/{study}/series/{series}/instances/{instance}", **_FILES)
def instance_file(request: Request, study: Uid, series: Uid, instance: Uid, _: Reader) -> Response:
    """One file, as received."""
    return _files(request, study, series, instance)


@router.get("/{study}/metadata", **_declared(JSON))
def study_metadata(request: Request, study: Uid, _: Reader) -> JSONResponse:
    """Headers of all files of a study, without pixel data."""
    return _metadata(request, study)


@router.get("/{study}/series/{series}/metadata", **_declared(JSON))
def series_metadata(request: Request, study: Uid, series: Uid, _: Reader) -> JSONResponse:
    """Headers of all files of a series, without pixel data."""
    return _metadata(request, study, series)


@router.get("/{study}/series/{series}/instances/{instance}/metadata", **_declared(JSON))
def instance_metadata(
    request: Request, study: Uid, series: Uid, instance: Uid, _: Reader
) -> JSONResponse:
    """The header of a file, without pixel data."""
    return _metadata(request, study, series, instance)


@router.get(
    "/{study}/series/{series}/instances/{instance}/frames/{frames}",
    **_declared("multipart/related", 406),
)
async def frames(
    request: Request, study: Uid, series: Uid, instance: Uid, frames: Frames, _: Reader
) -> StreamingResponse:
    """Frames, numbered from 1: as stored if the client accepts that, otherwise uncompressed."""
    service = service_of(request)
    path = (await run_in_threadpool(_found, service, study, series, instance))[0]
    numbers = [int(number) for number in frames.split(",")]
    kind, contents = await run_in_threadpool(_frames, request, path, numbers)
    return _multipart(kind, contents)


_RENDERED = _declared("image/jpeg", 406)
Viewport = Annotated[str | None, Query(pattern=r"^[1-9][0-9]{0,4},[1-9][0-9]{0,4}(,.{0,64})?$")]


@router.get("/{study}/series/{series}/instances/{instance}/rendered", **_RENDERED)
def rendered(
    request: Request, study: Uid, series: Uid, instance: Uid, _: Reader, viewport: Viewport = None
) -> Response:
    """The picture as JPEG, or as PNG if only PNG is accepted; of a file, the first frame."""
    return _rendered(request, (study, series, instance), 1, viewport)


@router.get("/{study}/series/{series}/instances/{instance}/frames/{frame}/rendered", **_RENDERED)
def rendered_frame(
    request: Request, study: Uid, series: Uid, instance: Uid, frame: Frame, _: Reader,
    viewport: Viewport = None,
) -> Response:  # fmt: skip
    """A frame as JPEG, or as PNG if only PNG is accepted."""
    return _rendered(request, (study, series, instance), frame, viewport)


def _found(
    service: Service, study: str, series: str | None = None, instance: str | None = None
) -> list[FilePath]:
    """Files by UID; the latest if several have the same UID.

    Raises:
        ProblemError: 404.
    """
    row = t.instance.c
    wanted = [row.study_uid == study]
    if series is not None:
        wanted.append(row.series_uid == series)
    if instance is not None:
        wanted.append(row.sop_uid == instance)
    newest = select(func.max(row.id)).where(*wanted).group_by(row.series_uid, row.sop_uid)
    with service.database.read() as connection:
        rows: list[Row[Any]] = list(
            connection.execute(select(row.sha256).where(row.id.in_(newest)).order_by(row.id)).all()
        )
    if not rows:
        raise ProblemError(HTTPStatus.NOT_FOUND, "found no such study, series or instance")
    return [service.blobs.path(one.sha256) for one in rows]


def _accepted(request: Request) -> list[tuple[str, str | None]]:
    """Media types and transfer syntaxes that the client accepts; ``*`` for any."""
    accepted = []
    header = request.headers.get("accept", "") or "*/*"
    for one in re.split(r",(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", header)[:50]:
        name = one.partition(";")[0].strip().lower()
        parameters = content_type(one)[1]
        if name == "multipart/related":
            name = parameters.get("type", "*/*").lower()
        accepted.append((name, parameters.get("transfer-syntax")))
    return accepted


def _files(request: Request, *uids: str) -> Response:
    paths = _found(service_of(request), *uids)
    accepted = _accepted(request)
    kinds = {_DICOM, "application/*", "*/*", "multipart/*"}
    syntaxes = {syntax for name, syntax in accepted if name in kinds}
    if not syntaxes:
        raise ProblemError(HTTPStatus.NOT_ACCEPTABLE, f"expected to accept {_DICOM}")
    parts = []
    for path in paths:
        stored = _syntax(path)
        if not syntaxes & {None, "*", stored}:
            raise ProblemError(
                HTTPStatus.NOT_ACCEPTABLE,
                f"the transfer syntax is {stored}, expected to accept it or *",
            )
        parts.append((f"{_DICOM}; transfer-syntax={stored}", iterate_in_threadpool(_pieces(path))))
    return _multipart(_DICOM, parts)


def _syntax(path: FilePath) -> str:
    """Transfer syntax of a file; detected if the file has no meta information."""
    try:
        meta = read_file_meta_info(path)
        return str(meta.TransferSyntaxUID)
    except Exception:  # noqa: BLE001  (no preamble)
        return str(_parsed(path).file_meta.TransferSyntaxUID)


def _pieces(path: FilePath) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PART):
            yield piece


def _multipart(kind: str, parts: list[tuple[str, AsyncIterator[bytes]]]) -> StreamingResponse:
    boundary = secrets.token_hex(16)
    return StreamingResponse(
        encoded(parts, boundary),
        media_type=f'multipart/related; type="{kind}"; boundary={boundary}',
    )


def _metadata(request: Request, *uids: str) -> JSONResponse:
    found = []
    for path in _found(service_of(request), *uids):
        ds = _parsed(path)
        for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
            if keyword in ds:
                delattr(ds, keyword)
        with quiet():
            ds.decode()
            header = ds.to_json_dict(suppress_invalid_tags=True)
        header["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
        syntax = str(ds.file_meta.TransferSyntaxUID)
        header["00083002"] = {"vr": "UI", "Value": [syntax]}  # AvailableTransferSyntaxUID
        found.append(header)
    return JSONResponse(found, media_type=JSON)


def _parsed(path: FilePath) -> Dataset:
    """The file; its pixel data stays encoded.

    Raises:
        ProblemError: 404 if the file is gone, 406 if the file cannot be read.
    """
    try:
        with quiet():
            return parse(path.read_bytes(), "file")
    except FileNotFoundError as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the file was deleted") from error
    except Exception as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ProblemError:
    return ProblemError(
        HTTPStatus.NOT_ACCEPTABLE, f"the file cannot be read ({type(error).__name__})"
    )


def _frames(
    request: Request, path: FilePath, numbers: list[int]
) -> tuple[str, list[tuple[str, AsyncIterator[bytes]]]]:
    ds = _parsed(path)
    count = int(ds.get("NumberOfFrames") or 1)
    if max(numbers) > count:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"the file has {count} frames")
    stored = str(ds.file_meta.TransferSyntaxUID)
    accepted = _accepted(request)
    try:
        with quiet():
            if UID(stored) in COMPRESSIONS and (kind := _stored_kind(accepted, stored)):
                contents = [get_frame(ds.PixelData, n - 1, number_of_frames=count) for n in numbers]
                return kind, [(f"{kind}; transfer-syntax={stored}", _once(c)) for c in contents]
            if not _accepts_plain(accepted):
                raise ProblemError(
                    HTTPStatus.NOT_ACCEPTABLE, f"expected to accept {_BYTES} or {stored}"
                )
            found = {
                index: _plain(frame.values, ds)
                for index, frame in enumerate(stored_frames(ds, "file"), start=1)
                if index in numbers
            }
        plain = f"{_BYTES}; transfer-syntax={ExplicitVRLittleEndian}"
        return _BYTES, [(plain, _once(found[number])) for number in numbers]
    except ProblemError:
        raise
    except Exception as error:
        raise _unreadable(error) from error


def _stored_kind(accepted: list[tuple[str, str | None]], stored: str) -> str | None:
    """Accepted media type of a compressed frame as stored; None if not accepted."""
    image = _IMAGES.get(stored)
    for name, syntax in accepted:
        if name == image and syntax in (None, "*", stored):
            return image
        if name == _BYTES and syntax in ("*", stored):
            return _BYTES
    return None


def _accepts_plain(accepted: list[tuple[str, str | None]]) -> bool:
    kinds = {_BYTES, "application/*", "*/*", "multipart/*"}
    plain = {None, "*", str(ExplicitVRLittleEndian)}
    return any(name in kinds and syntax in plain for name, syntax in accepted)


def _plain(values: Any, ds: Dataset) -> bytes:
    """Pixel values as in an uncompressed file, little endian."""
    allocated = int(ds.BitsAllocated)
    if allocated == 1:
        return np.packbits(values.astype(np.uint8).ravel(), bitorder="little").tobytes()
    kind = "i" if int(ds.PixelRepresentation) else "u"
    return bytes(np.ascontiguousarray(values).astype(f"<{kind}{allocated // 8}").tobytes())


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _rendered(
    request: Request, uids: tuple[str, str, str], frame: int, viewport: str | None
) -> Response:
    path = _found(service_of(request), *uids)[0]
    names = [name for name, _ in _accepted(request)]
    media = next(
        (
            "image/png" if name == "image/png" else "image/jpeg"
            for name in names
            if name in ("image/jpeg", "image/png", "image/*", "*/*")
        ),
        None,
    )
    if media is None:
        raise ProblemError(HTTPStatus.NOT_ACCEPTABLE, "expected to accept image/jpeg or image/png")
    try:
        with closing(decode(path.read_bytes(), path, path.name)) as pictures:
            picture = next((p for n, p in enumerate(pictures, start=1) if n == frame), None)
    except FileNotFoundError as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, "the file was deleted") from error
    except ImageError as error:
        raise _unreadable(error) from error
    if picture is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"the file has no frame {frame}")
    image = Image.fromarray(render(picture.pixels).pixels)
    if viewport is not None:
        width, height = viewport.split(",")[:2]
        image.thumbnail((int(width), int(height)), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, media.removeprefix("image/").upper(), quality=90)
    return Response(file.getvalue(), media_type=media)
