"""``/studies``: DICOM studies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel
from sqlalchemy import Connection, Row, literal_column, select, tuple_

from ...report.page_row import URGENCY
from .. import pages
from .. import tables as t
from ..accounts import Principal
from ..worklist import WAITING_RANK
from .links import links
from .models import Picture
from .pictures import to_pictures
from .problems import ProblemError, responses
from .security import allow, service_of

router = APIRouter(prefix="/studies", tags=["studies"])

Number = Annotated[int, Path(ge=1, le=2**53)]
Reader = Annotated[Principal, Depends(allow("reader"))]
_HAS_PICTURES = t.study.c.pictures > literal_column("0")  # no parameter: as in the index
_MOST_PICTURES = 1000
"""Numbers of pictures of a study by state."""


class Study(BaseModel):
    """A study.

    Attributes:
        id: Number of the study.
        key: Pseudonym, as in the results of ``fxpipe run``.
        pictures: Number of pictures.
        states: Number of pictures in each state.
        answer: Most urgent answer; null while pictures are hidden or waiting.
        rank: Urgency rank of that answer, 0 is most urgent.
        last_seen: Arrival of the latest picture, milliseconds since 1970, UTC.
        stable: Whether no further picture is expected.
        hidden: Whether an answer is hidden from the blind reader.
    """

    id: int
    key: str
    pictures: int
    states: dict[str, int]
    answer: str | None
    rank: int | None
    last_seen: int
    stable: bool
    hidden: bool


class StudyPage(BaseModel):
    """A page of studies.

    Attributes:
        studies: Studies in the requested order.
        next: Cursor of the next page; null on the last one.
    """

    studies: list[Study]
    next: str | None


class StudyWithPictures(BaseModel):
    """A study with its pictures.

    Attributes:
        pictures: Pictures in order of arrival.
        identity: Patient and study by DICOM keyword; null if unknown.
    """

    id: int
    key: str
    states: dict[str, int]
    answer: str | None
    rank: int | None
    last_seen: int
    stable: bool
    hidden: bool
    pictures: list[Picture]
    identity: dict[str, str] | None


@router.get(
    "", response_model=StudyPage,
    responses=links(200, "/studies/0/id", "GET /studies/{number}") | responses(401, 403, 422),
)  # fmt: skip
def list_studies(
    request: Request, principal: Reader,
    order: Literal["urgency", "newest"] = "urgency",
    after: Annotated[str | None, Query(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> StudyPage:  # fmt: skip
    """Studies by urgency, then newest first; or by their latest picture.

    For blind readers, always by their latest picture.
    """
    study = t.study.c
    by_rank = order == "urgency" and not principal.blind
    first, number = map(int, after.split("-")) if after else (None, None)
    if by_rank:
        ranks = range(WAITING_RANK + 1)
        query = pages.by_urgency(t.study, [_HAS_PICTURES], ranks, limit + 1, first, number)
    else:
        query = select(t.study).where(_HAS_PICTURES)
        if after is not None:
            query = query.where(tuple_(study.last_seen_ms, study.id) < tuple_(first, number))
        query = query.order_by(study.last_seen_ms.desc(), study.id.desc()).limit(limit + 1)
    with service_of(request).database.read() as connection:
        rows = connection.execute(query).all()
        pictures = _pictures(connection, [row.id for row in rows[:limit]], principal)
    studies = [
        Study(**_summary(row, pictures[row.id]), pictures=row.pictures) for row in rows[:limit]
    ]
    last = rows[limit - 1] if len(rows) > limit else None
    cursor = f"{last.rank if by_rank else last.last_seen_ms}-{last.id}" if last else None
    return StudyPage(studies=studies, next=cursor)


@router.get("/{number}", response_model=StudyWithPictures, responses=responses(401, 403, 404, 422))
def read_study(request: Request, number: Number, principal: Reader) -> StudyWithPictures:
    """A study with its pictures, and the patient if known."""
    with service_of(request).database.read() as connection:
        row = connection.execute(
            select(t.study).where(t.study.c.id == number, _HAS_PICTURES)
        ).first()
        if row is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"found no study {number}")
        pictures = _pictures(connection, [number], principal)[number]
    identity = {key: value for key, value in (row.identity or {}).items() if value}
    return StudyWithPictures(
        **_summary(row, pictures), pictures=pictures, identity=identity or None
    )


def _pictures(
    connection: Connection, studies: Sequence[int], principal: Principal
) -> dict[int, list[Picture]]:
    arrival = t.arrival.c
    rows = connection.execute(
        select(t.arrival)
        .where(arrival.study_id.in_(studies), arrival.deleted_ms.is_(None))
        .order_by(arrival.id)
        .limit(_MOST_PICTURES * max(1, len(studies)))
    ).all()
    by_study: dict[int, list[Picture]] = defaultdict(list)
    for picture in to_pictures(connection, rows, principal):
        if picture.study is not None:
            by_study[picture.study].append(picture)
    return by_study


def _summary(row: Row[Any], pictures: Sequence[Picture]) -> dict[str, Any]:
    hidden = any(picture.hidden for picture in pictures)
    answers = [URGENCY.index(picture.answer) for picture in pictures if picture.answer]
    rank = min(answers) if answers and not hidden else None
    return {
        "id": row.id, "key": row.key, "states": Counter(picture.state for picture in pictures),
        "answer": None if rank is None else URGENCY[rank], "rank": rank,
        "last_seen": row.last_seen_ms, "stable": row.stable_ms is not None, "hidden": hidden,
    }  # fmt: skip
