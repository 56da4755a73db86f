"""DICOMweb STOW-RS: DICOM files over HTTP."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from .. import dicom_node, instances
from ..accounts import Principal
from ..application import Service
from ..blobs import Content, DiskFullError, Receiving
from ..dicom_node import CLASSES, MISMATCH, NO_RESOURCES, NOT_UNDERSTOOD
from ..instances import Header
from ..multipart_related import (
    MultipartError,
    MultipartParser,
    PartBegins,
    PartData,
    content_type,
)
from .pictures import upload_slot
from .problems import ProblemError, Responses, responses
from .security import allow, service_of

router = APIRouter(tags=["dicomweb"])

JSON = "application/dicom+json"
Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$")]
_MOST_PARTS = 1000
_NOT_SUPPORTED = 0x0122
_OUTCOME: dict[str, Any] = {"content": {JSON: {"schema": {"type": "object"}}}}
_RESPONSES: Responses = {
    200: {"description": "All files were stored", **_OUTCOME},
    202: {"description": "Some files were stored", **_OUTCOME},
    409: {"description": "No file was stored", **_OUTCOME},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            'multipart/related; type="application/dicom"': {
                "schema": {"type": "string", "format": "binary"}
            }
        },
    }
}
_DECLARED: dict[str, Any] = {
    "response_class": JSONResponse,
    "openapi_extra": _BODY,
    "responses": responses(400, 401, 403, 413, 415, 422, 429, 507) | _RESPONSES,
}


@router.post("/studies", **_DECLARED)
async def store(
    request: Request, principal: Annotated[Principal, Depends(allow("sender"))]
) -> JSONResponse:
    """Receive DICOM files; files in ReferencedSOPSequence are stored and will be judged."""
    return await _store(request, principal, None)


@router.post("/studies/{study}", **_DECLARED)
async def store_in_study(
    request: Request, study: Uid, principal: Annotated[Principal, Depends(allow("sender"))]
) -> JSONResponse:
    """Receive DICOM files of one study."""
    return await _store(request, principal, study)


async def _store(request: Request, principal: Principal, study: str | None) -> JSONResponse:
    service = service_of(request)
    parser = MultipartParser(_boundary(request))
    parts = _Parts(service, principal, study)
    async with upload_slot(request, 0):
        try:
            async for piece in request.stream():
                for event in parser.feed(piece):
                    await run_in_threadpool(parts.take, event)
            parser.close()
        except MultipartError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except ClientDisconnect as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "the upload ended early") from error
        finally:
            parts.close()
    return parts.response(str(request.base_url).rstrip("/"))


def _boundary(request: Request) -> str:
    media, parameters = content_type(request.headers.get("content-type", ""))
    if media != "multipart/related":
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            'expected a body of type multipart/related; type="application/dicom"',
        )
    if parameters.get("type", "application/dicom").lower() != "application/dicom":
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected parts of type application/dicom"
        )
    boundary = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= 200:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "expected a boundary in Content-Type")
    return boundary


class _Parts:
    """Stores the parts of a message."""

    def __init__(self, service: Service, principal: Principal, study: str | None) -> None:
        self._service, self._principal, self._study = service, principal, study
        self._receiving: Receiving | None = None
        self._reason: int | None = None
        self._stored: list[dict[str, str]] = []
        self._failed: list[tuple[dict[str, str], int]] = []

    def take(self, event: Any) -> None:
        """Process bytes of the message."""
        if isinstance(event, PartBegins):
            self._begin(event)
        elif isinstance(event, PartData):
            self._write(event.content)
        else:
            self._end()

    def close(self) -> None:
        """Remove the content of an incomplete part."""
        if self._receiving is not None:
            self._receiving.__exit__(None, None, None)
            self._receiving = None

    def _begin(self, event: PartBegins) -> None:
        if len(self._stored) + len(self._failed) >= _MOST_PARTS:
            raise ProblemError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {_MOST_PARTS} parts"
            )
        self._reason = None
        media, _ = content_type(event.headers.get("content-type", "application/dicom"))
        if media != "application/dicom":
            self._reason = NOT_UNDERSTOOD
            return
        try:
            self._receiving = self._service.blobs.receive()
        except DiskFullError:
            self._reason = NO_RESOURCES

    def _write(self, content: bytes) -> None:
        if self._receiving is None:
            return
        if self._receiving.size + len(content) > self._service.config.most_bytes:
            self.close()
            self._reason = NOT_UNDERSTOOD
            return
        try:
            self._receiving.write(content)
        except DiskFullError:
            self.close()
            self._reason = NO_RESOURCES

    def _end(self) -> None:
        uids: dict[str, str] = {}
        reason = self._reason
        if self._receiving is not None:
            header = instances.read_header(self._receiving.path)
            uids = {} if header is None else header.columns
            reason = self._refusal(header)
            if reason is None and header is not None:
                try:
                    self._keep(self._receiving.keep(), header)
                except DiskFullError:
                    reason = NO_RESOURCES
        self.close()
        if reason is None:
            self._stored.append(uids)
        else:
            self._failed.append((uids, reason))

    def _refusal(self, header: Header | None) -> int | None:
        if header is None:
            return NOT_UNDERSTOOD
        if header.columns["sop_class"] not in CLASSES:
            return _NOT_SUPPORTED
        if self._study is not None and header.columns["study_uid"] != self._study:
            return MISMATCH
        return None

    def _keep(self, content: Content, header: Header) -> None:
        dicom_node.receive_instance(self._service, content, header, "http", self._principal.sender)

    def response(self, base: str) -> JSONResponse:
        """The response, with the outcome of each part."""
        if not self._stored and not self._failed:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "found no parts, expected DICOM files")
        body: dict[str, Any] = {}
        if self._stored:
            body["00081199"] = {"vr": "SQ", "Value": [_stored(one, base) for one in self._stored]}
        if self._failed:
            body["00081198"] = {"vr": "SQ", "Value": [_failed(*one) for one in self._failed]}
        status = HTTPStatus.OK
        if self._failed:
            status = HTTPStatus.ACCEPTED if self._stored else HTTPStatus.CONFLICT
            if not self._stored and all(reason == NO_RESOURCES for _, reason in self._failed):
                raise ProblemError(HTTPStatus.INSUFFICIENT_STORAGE, "the disk is full")
        return JSONResponse(body, status, media_type=JSON)


def _stored(uids: dict[str, str], base: str) -> dict[str, Any]:
    url = (
        f"{base}/dicom-web/studies/{uids['study_uid']}/series/{uids['series_uid']}"
        f"/instances/{uids['sop_uid']}"
    )
    return {**_reference(uids), "00081190": {"vr": "UR", "Value": [url]}}


def _failed(uids: dict[str, str], reason: int) -> dict[str, Any]:
    return {**_reference(uids), "00081197": {"vr": "US", "Value": [reason]}}


def _reference(uids: dict[str, str]) -> dict[str, Any]:
    """SOP class and instance, if known."""
    return {
        tag: {"vr": "UI", "Value": [uids[name]]}
        for tag, name in (("00081150", "sop_class"), ("00081155", "sop_uid"))
        if name in uids
    }
