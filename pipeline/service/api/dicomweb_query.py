"""DICOMweb QIDO-RS: queries for studies, series and instances."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from sqlalchemy import ColumnElement, Connection, func, or_, select

from .. import tables as t
from ..accounts import Principal
from ..instances import INSTANCE, SERIES, STUDY
from .dicomweb_store import JSON, Uid
from .problems import ProblemError, Responses, responses
from .security import allow, service_of

router = APIRouter(tags=["dicomweb"])

_FOUND: dict[str, Any] = {
    "content": {JSON: {"schema": {"type": "array", "items": {"type": "object"}}}}
}
_RESPONSES: Responses = {200: {"description": "What matches", **_FOUND}}
_DECLARED: dict[str, Any] = {
    "response_class": JSONResponse,
    "responses": responses(400, 401, 403, 422) | _RESPONSES,
}
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=2**53)]
Reader = Annotated[Principal, Depends(allow("reader"))]

_row = t.instance.c
_COLUMNS: dict[str, Any] = {
    "StudyInstanceUID": _row.study_uid,
    "SeriesInstanceUID": _row.series_uid,
    "SOPInstanceUID": _row.sop_uid,
    "SOPClassUID": _row.sop_class,
    "Modality": _row.modality,
    "PatientID": _row.patient_id,
    "PatientName": _row.patient_name,
    "AccessionNumber": _row.accession,
    "StudyDate": _row.study_date,
    "StudyTime": _row.study_time,
    "StudyID": _row.study_id,
}
"""Attributes that can be matched, in addition to ModalitiesInStudy."""
_RANGES = {"StudyDate", "StudyTime"}
_LISTS = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality"}
_OPTIONS = {"limit", "offset", "includefield", "fuzzymatching"}
_UNMATCHED = '299 fxpipe "some attributes cannot be matched and were ignored"'


@router.get("/studies", **_DECLARED)
def studies(request: Request, _: Reader, limit: Limit = 100, offset: Offset = 0) -> JSONResponse:
    """Studies that match, newest first."""
    return _answer(request, _studies, {}, limit, offset)


@router.get("/series", **_DECLARED)
def all_series(request: Request, _: Reader, limit: Limit = 100, offset: Offset = 0) -> JSONResponse:
    """Series of all studies."""
    return _answer(request, _series, {}, limit, offset)


@router.get("/instances", **_DECLARED)
def all_instances(
    request: Request, _: Reader, limit: Limit = 100, offset: Offset = 0
) -> JSONResponse:
    """Instances of all studies."""
    return _answer(request, _instances, {}, limit, offset)


@router.get("/studies/{study}/series", **_DECLARED)
def series(
    request: Request, study: Uid, _: Reader, limit: Limit = 100, offset: Offset = 0
) -> JSONResponse:
    """Series of a study."""
    return _answer(request, _series, {"StudyInstanceUID": study}, limit, offset)


@router.get("/studies/{study}/instances", **_DECLARED)
def instances_of_study(
    request: Request, study: Uid, _: Reader, limit: Limit = 100, offset: Offset = 0
) -> JSONResponse:
    """Instances of a study."""
    return _answer(request, _instances, {"StudyInstanceUID": study}, limit, offset)


@router.get("/studies/{study}/series/{series}/instances", **_DECLARED)
def instances_of_series(
    request: Request, study: Uid, series: Uid, _: Reader, limit: Limit = 100, offset: Offset = 0
) -> JSONResponse:
    """Instances of a series."""
    fixed = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
    return _answer(request, _instances, fixed, limit, offset)


def _answer(
    request: Request, find: Any, fixed: dict[str, str], limit: int, offset: int
) -> JSONResponse:
    wanted = [_matches(keyword, value) for keyword, value in fixed.items()]
    ignored = False
    for name, value in request.query_params.multi_items():
        if name in _OPTIONS or not value:
            continue
        keyword = _keyword(name)
        if keyword == "ModalitiesInStudy":
            same = select(_row.study_uid).where(_matches("Modality", value))
            wanted.append(_row.study_uid.in_(same))
        elif keyword in _COLUMNS:
            wanted.append(_matches(keyword, value))
        else:
            ignored = True
    with service_of(request).database.read() as connection:
        found = find(connection, wanted, limit, offset)
    return JSONResponse(
        found, media_type=JSON, headers={"Warning": _UNMATCHED} if ignored else None
    )


def _keyword(name: str) -> str:
    """The keyword of a parameter, which may be a tag.

    Raises:
        ProblemError: 400 for an unknown keyword or tag.
    """
    keyword = name
    if re.fullmatch("[0-9A-Fa-f]{8}", name):
        keyword = keyword_for_tag(int(name, 16))
    # A path into a sequence is valid, but cannot be matched.
    if tag_for_keyword(keyword.partition(".")[0]) is None:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "found a parameter that is neither an option nor a DICOM attribute",
        )
    return keyword


def _matches(keyword: str, value: str) -> ColumnElement[bool]:
    """Condition for an attribute, by the matching rules of PS3.4, C.2.2.2."""
    column: ColumnElement[str] = _COLUMNS[keyword]
    if "\0" in value:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"{keyword}: found a zero byte")
    if keyword == "PatientName":
        value = value.upper()
    if keyword in _RANGES:
        first, dash, last = value.replace(":", "").partition("-")
        if not dash:
            return or_(column == first, column.startswith(first, autoescape=True))
        wanted = []
        if first:
            wanted.append(column >= first)
        if last:
            wanted.append(column < last + "~")
        condition: ColumnElement[bool] = column != ""
        for one in wanted:
            condition = condition & one
        return condition
    if keyword in _LISTS and re.search(r"[\\,]", value):
        return column.in_(re.split(r"[\\,]", value)[:1000])
    if re.search("[*?]", value) and keyword not in _LISTS - {"Modality"}:
        escaped = re.sub(r"([%_/])", r"/\1", value).replace("*", "%").replace("?", "_")
        return column.like(escaped, escape="/")
    return column == value


Found = list[dict[str, Any]]


def _studies(connection: Connection, wanted: list[Any], limit: int, offset: int) -> Found:
    newest = func.max(_row.id)
    uids = connection.scalars(
        select(_row.study_uid).where(*wanted).group_by(_row.study_uid)
        .order_by(newest.desc()).limit(limit).offset(offset)
    ).all()  # fmt: skip
    return [_study(connection, uid) for uid in uids]


def _study(connection: Connection, uid: str) -> dict[str, Any]:
    rows = connection.execute(
        select(_row.series_uid, _row.sop_uid, _row.modality, _row.header)
        .where(_row.study_uid == uid)
        .order_by(_row.id)
    ).all()
    answer = _selected(rows[-1].header, STUDY)
    _put(answer, "ModalitiesInStudy", "CS", sorted({row.modality for row in rows} - {""}))
    _put(answer, "NumberOfStudyRelatedSeries", "IS", [len({row.series_uid for row in rows})])
    _put(answer, "NumberOfStudyRelatedInstances", "IS", [len({row.sop_uid for row in rows})])
    return answer


def _series(connection: Connection, wanted: list[Any], limit: int, offset: int) -> Found:
    groups = connection.execute(
        select(_row.study_uid, _row.series_uid, func.max(_row.id).label("newest"),
               func.count(_row.sop_uid.distinct()).label("instances"))
        .where(*wanted).group_by(_row.study_uid, _row.series_uid)
        .order_by(func.max(_row.id)).limit(limit).offset(offset)
    ).all()  # fmt: skip
    found = []
    for group in groups:
        header = connection.scalar(select(_row.header).where(_row.id == group.newest))
        answer = _selected(header, (*STUDY, *SERIES))
        _put(answer, "NumberOfSeriesRelatedInstances", "IS", [group.instances])
        found.append(answer)
    return found


def _instances(connection: Connection, wanted: list[Any], limit: int, offset: int) -> Found:
    newest = (
        select(func.max(_row.id)).where(*wanted).group_by(_row.study_uid, _row.sop_uid)
    )  # fmt: skip
    headers = connection.scalars(
        select(_row.header).where(_row.id.in_(newest)).order_by(_row.id)
        .limit(limit).offset(offset)
    ).all()  # fmt: skip
    return [_selected(header, (*STUDY, *SERIES, *INSTANCE)) for header in headers]


def _selected(header: Any, keywords: tuple[str, ...]) -> dict[str, Any]:
    tags = {f"{tag_for_keyword(keyword):08X}" for keyword in keywords}
    answer = {tag: value for tag, value in header.items() if tag in tags}
    _put(answer, "SpecificCharacterSet", "CS", ["ISO_IR 192"])
    return answer


def _put(answer: dict[str, Any], keyword: str, vr: str, values: list[Any]) -> None:
    answer[f"{tag_for_keyword(keyword):08X}"] = {"vr": vr, "Value": values}
