"""``/exports``: results and labels as files."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from .. import audit_log, exports
from ..accounts import Principal
from ..application import Service
from ..exports import Selection
from ..label_export import as_labels
from .files import attachment
from .pictures import Answer
from .problems import ProblemError, Responses, responses
from .security import allow, service_of

router = APIRouter(prefix="/exports", tags=["exports"])

Kind = Literal["csv", "jsonl", "fhir", "labels", "dicom"]
Time = Annotated[int | None, Query(ge=0, le=2**53)]
_FILES = {
    "csv": ("results.csv", "text/csv; charset=utf-8"),
    "jsonl": ("results.jsonl", "application/jsonl"),
    "fhir": ("results.fhir.json", "application/fhir+json"),
    "labels": ("labels.zip", "application/zip"),
    "dicom": ("dicom.zip", "application/zip"),
}
_CONTENT: Responses = {
    200: {"content": {media.partition(";")[0]: {} for _, media in _FILES.values()}}
}


@router.get(
    "/{kind}", response_class=StreamingResponse, responses=_CONTENT | responses(401, 403, 422)
)
def export(
    request: Request, kind: Kind,
    principal: Annotated[Principal, Depends(allow("reader", "auditor"))],
    state: Literal["answered", "unsupported", "failed"] | None = None,
    answer: Answer | None = None, since: Time = None, until: Time = None,
    identifiers: Literal["omit", "keep"] = "omit",
) -> StreamingResponse:  # fmt: skip
    """Results in the format of ``fxpipe run``, or reviews as labels with the pictures.

    Blind readers get only pictures that they have reviewed. Auditors get no pictures and no
    identifiers. If an export cannot be completed, the connection ends before the response does.
    """
    service = service_of(request)
    keep = identifiers == "keep"
    if principal.role == "auditor" and (keep or kind in ("labels", "dicom")):
        raise ProblemError(HTTPStatus.FORBIDDEN, "auditors get no pictures and no identifiers")
    selection = Selection(principal, state, answer, since, until, keep)
    service.database.write(
        lambda c: audit_log.append(c, principal.name, "export", kind, {"identifiers": identifiers})
    )
    name, media = _FILES[kind]
    parts = _stream(service, kind, selection)
    first = next(parts, b"")  # an error up to here is a problem; a later one ends the connection
    return StreamingResponse(chain((first,), parts), media_type=media, headers=attachment(name))


def _stream(service: Service, kind: Kind, selection: Selection) -> Iterator[bytes]:
    database = service.database
    if kind == "csv":
        return exports.as_csv(database, selection)
    if kind == "jsonl":
        return exports.as_json_lines(database, selection)
    if kind == "fhir":
        return exports.as_fhir(database, selection)
    if kind == "labels":
        return as_labels(database, selection, service.blobs)
    return exports.as_dicom(database, selection, service.blobs, service.config.run)
