"""``/reviews``: verdicts of readers on results."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, func, select

from ...domain import REGIONS
from .. import reviews
from .. import tables as t
from ..accounts import Principal
from ..reviews import NewReview, ReviewError
from ..visibility import visible_among
from .links import links
from .models import Body
from .problems import ProblemError, responses
from .security import allow, service_of

router = APIRouter(tags=["reviews"])

Number = Annotated[int, Path(ge=1, le=2**53)]
Reader = Annotated[Principal, Depends(allow("reader"))]
Region = Annotated[str, Field(pattern=f"^({'|'.join((*REGIONS, 'other'))})$")]
Coordinate = Annotated[float, Field(ge=0.0, le=100_000.0, allow_inf_nan=False)]


class Mark(Body):
    """A location in source px, from the top left corner."""

    x: Coordinate
    y: Coordinate


class ReviewRequest(Body):
    """A review to store.

    Attributes:
        verdict: ``agree`` stores fxpipe's answer.
        region: Region shown in the picture; ``other`` for an unsupported region.
        marks: Locations of fractures.
        comment: Text without identifiers.
    """

    verdict: Literal["fracture", "none", "unsure", "agree", "wrong_region"]
    region: Region | None = None
    marks: Annotated[list[Mark], Field(max_length=100, default_factory=list)]
    comment: Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")] = ""


class Review(BaseModel):
    """A verdict of a reader.

    Attributes:
        id: Number of the review.
        result: Number of the result.
        reader: Name of the reader.
        blind: Whether fxpipe's answer was hidden when the review was stored.
        verdict: ``withdrawn`` for the withdrawal of the previous review.
        region, marks, comment: See :class:`ReviewRequest`.
        supersedes: Number of the previous review of the same reader.
        created: Milliseconds since 1970, UTC.
    """

    id: int
    result: int
    reader: str
    blind: bool
    verdict: Literal["fracture", "none", "unsure", "wrong_region", "withdrawn"]
    region: str | None
    marks: list[Mark]
    comment: str
    supersedes: int | None
    created: int


class ListedReview(Review):
    """A review with its picture.

    Attributes:
        picture: Number of the picture; null if it was deleted.
        answer: fxpipe's answer.
        found_region: Region detected by fxpipe.
    """

    picture: int | None
    answer: str
    found_region: str | None


class ReviewPage(BaseModel):
    """Reviews, newest first.

    Attributes:
        reviews: Reviews of this page.
        next: Cursor of the next page; null on the last one.
    """

    reviews: list[ListedReview]
    next: int | None


@router.get(
    "/results/{number}/reviews", response_model=list[Review],
    responses=responses(401, 403, 404, 422),
)  # fmt: skip
def list_of_result(request: Request, number: Number, principal: Reader) -> list[Review]:
    """All reviews of a result, oldest first; empty while the answer is hidden."""
    with service_of(request).database.read() as connection:
        result = reviews.find_result(connection, number)
        if result is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"found no result {number}")
        if result.sha256 not in visible_among(connection, principal, [result.sha256]):
            return []
        rows = connection.execute(
            reviews.query().where(t.review.c.result_id == number).order_by(t.review.c.id)
        ).all()
    return [Review(**_values(row)) for row in rows]


@router.post(
    "/results/{number}/reviews", status_code=201, response_model=Review,
    responses=links(201, "/id", "DELETE /reviews/{number}") | responses(401, 403, 404, 409, 422),
)  # fmt: skip
def add(request: Request, number: Number, body: ReviewRequest, principal: Reader) -> Review:
    """Store a verdict, which supersedes an earlier one of the same reader.

    409: ``agree`` while the answer is hidden.
    """
    _refuse_token(principal)
    new = NewReview(
        body.verdict, body.region, [mark.model_dump() for mark in body.marks], body.comment
    )

    def store(connection: Connection) -> Row[Any]:
        review = reviews.add(connection, number, new, principal)
        return connection.execute(reviews.query().where(t.review.c.id == review)).one()

    try:
        return Review(**_values(service_of(request).database.write(store)))
    except LookupError as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no result {number}") from error
    except ReviewError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error


@router.delete(
    "/reviews/{number}", status_code=204, responses=responses(401, 403, 404, 409, 422),
    response_class=Response,
)  # fmt: skip
def withdraw(request: Request, number: Number, principal: Reader) -> Response:
    """Withdraw your latest review of a picture, within ten minutes."""
    _refuse_token(principal)
    try:
        service_of(request).database.write(lambda c: reviews.withdraw(c, number, principal))
    except LookupError as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"found no review {number} of yours") from error
    except ReviewError as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    return Response(status_code=204)


@router.get("/reviews", response_model=ReviewPage, responses=responses(401, 403, 422))
def list_reviews(
    request: Request, principal: Reader, mine: bool = False,
    after: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ReviewPage:  # fmt: skip
    """Reviews of all readers, or your own; for blind readers, of pictures they reviewed."""
    review, arrival = t.review.c, t.arrival.c
    picture = (
        select(func.max(arrival.id))
        .where(arrival.sha256 == t.result.c.sha256, arrival.deleted_ms.is_(None))
        .scalar_subquery()
    )
    query = reviews.query().add_columns(picture.label("picture")).order_by(review.id.desc())
    if mine or principal.blind:
        query = query.where(review.reader_id == principal.user)
    if after is not None:
        query = query.where(review.id < after)
    with service_of(request).database.read() as connection:
        rows = connection.execute(query.limit(limit + 1)).all()
    listed = [
        ListedReview(
            **_values(row), picture=row.picture, answer=row.answer, found_region=row.found_region
        )
        for row in rows[:limit]
    ]
    return ReviewPage(reviews=listed, next=listed[-1].id if len(rows) > limit else None)


def _refuse_token(principal: Principal) -> None:
    if principal.user is None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN, "found the token of a program, expected the login of a reader"
        )


def _values(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id, "result": row.result_id, "reader": row.reader, "blind": row.blind,
        "verdict": row.verdict, "region": row.region, "marks": row.marks, "comment": row.comment,
        "supersedes": row.supersedes, "created": row.created_ms,
    }  # fmt: skip
