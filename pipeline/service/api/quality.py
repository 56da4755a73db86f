"""``/quality``: agreement with readers, rates by region and week, drift."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from .. import quality
from ..accounts import Principal
from ..agreement import Rate
from .problems import responses
from .security import allow, service_of

router = APIRouter(prefix="/quality", tags=["quality"])


class Interval(BaseModel):
    """A rate with its 95 % interval; null if undefined."""

    value: float | None
    low: float | None
    high: float | None


class Agreement(BaseModel):
    """Agreement of fxpipe with the readers.

    Attributes:
        n: Number of pictures with the same verdict of all readers, *fracture* or *none*.
        kappa, low, high: Cohen's kappa of *positive* and *fracture*, with 95 % interval.
    """

    n: int
    kappa: float | None
    low: float | None
    high: float | None


class CardFigures(BaseModel):
    """Rates that were published with the weights."""

    sensitivity: Interval | None
    specificity: Interval | None


class RegionFigures(BaseModel):
    """Rates by the region of the answer, against the verdicts of readers.

    Attributes:
        region: Region of the answer.
        n: Number of pictures.
        positives: Number of pictures with a fracture.
        sensitivity, specificity: Rates of the answer *positive*.
        card: Published rates of the weights.
    """

    region: str
    n: int
    positives: int
    sensitivity: Interval
    specificity: Interval
    card: CardFigures


class WeekFigures(BaseModel):
    """Pictures that arrived in a week; ``start`` is a Monday, milliseconds since 1970, UTC."""

    start: int
    pictures: int
    positive: int
    unsupported: int


class DriftFigures(BaseModel):
    """A rate in the last four weeks, compared with the test split of the weights.

    Attributes:
        now: Rate in the last four weeks.
        card, low, high: Rate in the test split with its interval; null if not published.
        warn: Whether the two intervals do not overlap.
    """

    now: float | None
    card: float | None
    low: float | None
    high: float | None
    warn: bool


class Drifts(BaseModel):
    """Drift of the rate of *positive* among judged, and of *unsupported* among all pictures."""

    positive: DriftFigures
    unsupported: DriftFigures


class Reason(BaseModel):
    """Number of overriding reviews with a verdict."""

    verdict: str
    count: int


class Quality(BaseModel):
    """Quality statistics of the current answers."""

    agreement: Agreement
    by_region: list[RegionFigures]
    weeks: list[WeekFigures]
    drift: Drifts
    reasons: list[Reason]


@router.get("", response_model=Quality, responses=responses(401, 403))
def read_quality(
    request: Request, principal: Annotated[Principal, Depends(allow("reader", "auditor"))]
) -> Quality:
    """Quality statistics; for blind readers only of pictures that they have reviewed."""
    with service_of(request).database.read() as connection:
        reviewed = quality.cases(connection, principal)
        by_week = quality.weeks(connection, principal)
        positive, unsupported = quality.drift(connection, by_week)
        card = quality.card_points(connection)
    number, kappa = quality.agreement(reviewed)
    return Quality(
        agreement=Agreement(n=number, kappa=kappa.value, low=kappa.low, high=kappa.high),
        by_region=[
            RegionFigures(
                region=region, n=n, positives=positives, sensitivity=_interval(sensitivity),
                specificity=_interval(specificity),
                card=CardFigures(
                    sensitivity=card.get(region, {}).get("sensitivity"),
                    specificity=card.get(region, {}).get("specificity"),
                ),
            )
            for region, (n, positives, sensitivity, specificity) in quality.by_region(
                reviewed
            ).items()
        ],
        weeks=[WeekFigures(**asdict(week)) for week in by_week],
        drift=Drifts(positive=_drift(positive), unsupported=_drift(unsupported)),
        reasons=[Reason(verdict=v, count=n) for v, n in quality.reasons(reviewed)],
    )  # fmt: skip


def _interval(rate: Rate) -> Interval:
    return Interval(value=rate.value, low=rate.low, high=rate.high)


def _drift(drift: quality.Drift) -> DriftFigures:
    card = drift.card
    return DriftFigures(
        now=drift.now, card=card.value, low=card.low, high=card.high, warn=drift.warn
    )
