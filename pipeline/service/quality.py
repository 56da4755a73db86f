"""Quality statistics: agreement with readers, rates by region and week, drift.

The reference for a picture is the verdict of its readers, if all agree on *fracture* or *none*.
Only the answer *positive* counts as positive, as in the figures of the card.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, case, func, select

from ..outcome import Status, Verdict
from . import engine_state, verdicts
from . import tables as t
from .accounts import Principal
from .agreement import Rate, kappa
from .database import now_ms
from .visibility import visible

WEEK_MS = 7 * 86_400_000
_MONDAY_MS = 4 * 86_400_000
"""1970-01-05, the first Monday."""
_WEEKS = 26
_DRIFT_WEEKS = 4
_DRIFT_PICTURES = 30
"""Minimum number of pictures for a warning."""
_REVIEW_MS = 366 * 86_400_000
_CHUNK = 500
_TRUTH = {verdicts.FRACTURE: True, verdicts.NONE: False}


@dataclass(frozen=True, slots=True)
class Week:
    """Pictures that arrived in a week.

    Attributes:
        start: Monday, milliseconds since 1970, UTC.
        pictures: Judged pictures.
        positive: Pictures with the answer *positive*.
        unsupported: Pictures without a supported region.
    """

    start: int
    pictures: int
    positive: int
    unsupported: int


@dataclass(frozen=True, slots=True)
class Case:
    """A reviewed picture.

    Attributes:
        region: Region of fxpipe's answer; None without one.
        positive: Whether fxpipe's answer is *positive*.
        truth: Whether the readers see a fracture; None if they disagree or are unsure.
        overrides: Verdicts of readers that contradict the answer.
    """

    region: str | None
    positive: bool
    truth: bool | None
    overrides: tuple[str, ...]


def weeks(connection: Connection, principal: Principal) -> list[Week]:
    """Weekly counts of judged pictures in the last half year, oldest first."""
    arrival = t.arrival.c
    first = week_of(now_ms()) - (_WEEKS - 1) * WEEK_MS
    number = (arrival.received_ms - _MONDAY_MS) // WEEK_MS
    rows = connection.execute(
        select(
            number.label("number"), func.count().label("pictures"),
            _count(arrival.answer == Verdict.POSITIVE).label("positive"),
            _count(arrival.answer == Status.UNSUPPORTED).label("unsupported"),
        )
        .where(
            arrival.received_ms >= first, arrival.deleted_ms.is_(None),
            arrival.state.in_(("answered", "unsupported")), *visible(principal),
        )
        .group_by("number")
        .order_by("number")
    )  # fmt: skip
    return [
        Week(int(row.number) * WEEK_MS + _MONDAY_MS, row.pictures, row.positive, row.unsupported)
        for row in rows
    ]


def week_of(at_ms: int) -> int:
    """The Monday before a time, both in milliseconds since 1970, UTC."""
    return (at_ms - _MONDAY_MS) // WEEK_MS * WEEK_MS + _MONDAY_MS


def _count(condition: Any) -> Any:
    return func.sum(case((condition, 1), else_=0))


def cases(connection: Connection, principal: Principal) -> list[Case]:
    """The pictures reviewed in the last year, with their current answers."""
    arrival, result, review = t.arrival.c, t.result.c, t.review.c
    hashes = list(
        connection.scalars(
            select(result.sha256)
            .join(t.review, review.result_id == result.id)
            .join(t.arrival, arrival.sha256 == result.sha256)
            .where(
                review.created_ms > now_ms() - _REVIEW_MS, arrival.deleted_ms.is_(None),
                *visible(principal),
            )
            .distinct()
        )
    )  # fmt: skip
    found: list[Case] = []
    for start in range(0, len(hashes), _CHUNK):
        part = hashes[start : start + _CHUNK]
        by_picture: dict[tuple[str, int], list[str]] = defaultdict(list)
        for row in verdicts.latest(connection, part):
            if row.verdict != verdicts.WITHDRAWN:
                by_picture[row.sha256, row.frame].append(row.verdict)
        shown = connection.execute(
            select(result.sha256, result.frame, result.answer, result.region)
            .join(
                t.arrival,
                (arrival.sha256 == result.sha256) & (arrival.engine_id == result.engine_id),
            )
            .where(result.sha256.in_(part), arrival.deleted_ms.is_(None))
            .distinct()
        )
        found += [
            _case(row, by_picture[row.sha256, row.frame])
            for row in shown
            if (row.sha256, row.frame) in by_picture
        ]
    return found


def _case(row: Any, own: Sequence[str]) -> Case:
    positive = row.answer == Verdict.POSITIVE
    agreed = verdicts.FRACTURE if positive else verdicts.NONE
    accepted = {agreed} | ({verdicts.UNSURE} if row.answer != Verdict.NEGATIVE else set())
    return Case(
        region=row.region, positive=positive,
        truth=_TRUTH.get(verdicts.combine(own) or ""),
        overrides=tuple(verdict for verdict in own if verdict not in accepted),
    )  # fmt: skip


def agreement(reviewed: Sequence[Case]) -> tuple[int, Rate]:
    """Number of judged pictures with a reference, and kappa between fxpipe and the readers."""
    counts = np.zeros((2, 2), np.int64)
    for one in reviewed:
        if one.truth is not None and one.region is not None:
            counts[int(one.positive), int(one.truth)] += 1
    return int(counts.sum()), kappa(counts)


def by_region(reviewed: Sequence[Case]) -> dict[str, tuple[int, int, Rate, Rate]]:
    """Pictures, fractures, sensitivity and specificity by region of the answer."""
    regions = sorted({one.region for one in reviewed if one.region is not None})
    table = {}
    for region in regions:
        known = [one for one in reviewed if one.region == region and one.truth is not None]
        ill = [one.positive for one in known if one.truth]
        well = [not one.positive for one in known if not one.truth]
        if known:
            sensitivity, specificity = Rate.of(sum(ill), len(ill)), Rate.of(sum(well), len(well))
            table[region] = (len(known), len(ill), sensitivity, specificity)
    return table


def reasons(reviewed: Sequence[Case]) -> list[tuple[str, int]]:
    """Number of overriding reviews by verdict, most frequent first."""
    return Counter(verdict for one in reviewed for verdict in one.overrides).most_common()


@dataclass(frozen=True, slots=True)
class Drift:
    """A rate in the last weeks, compared with the test split of the weights.

    Attributes:
        now: Rate in the last four weeks; None without pictures.
        card: Rate in the test split with its interval; undefined if not published.
        warn: Whether the two intervals do not overlap.
    """

    now: float | None
    card: Rate
    warn: bool


def drift(connection: Connection, by_week: Sequence[Week]) -> tuple[Drift, Drift]:
    """Rate of positive pictures among judged ones, and of unsupported ones among all.

    The prevalence of fractures differs between the test split and clinics: a warning requires an
    investigation, and does not mean that the answers are wrong.
    """
    active = engine_state.active_engine(connection)
    card = {} if active is None else active.card
    first = week_of(now_ms()) - (_DRIFT_WEEKS - 1) * WEEK_MS
    recent = [week for week in by_week if week.start >= first]
    pictures = sum(week.pictures for week in recent)
    unsupported = sum(week.unsupported for week in recent)
    positive = sum(week.positive for week in recent)
    return (
        _drift(positive, pictures - unsupported, card.get("positive")),
        _drift(unsupported, pictures, card.get("unsupported")),
    )


def _drift(hits: int, number: int, card: dict[str, Any] | None) -> Drift:
    now, published = Rate.of(hits, number), Rate(**card) if card else Rate()
    differs = now.is_disjoint(published.low, published.high)
    return Drift(now.value, published, number >= _DRIFT_PICTURES and differs)


def card_points(connection: Connection) -> dict[str, Any]:
    """Sensitivity and specificity by region from the contracts of the active engine."""
    active = engine_state.active_engine(connection)
    points: dict[str, Any] = {} if active is None else active.card.get("points", {})
    return points
