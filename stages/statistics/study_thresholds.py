"""Aggregation of pictures into studies, and thresholds for studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import StoredStudyPoint
from pipeline.domain import Array
from pipeline.outcome import AGGREGATION

from .calibration import MIN_CASES, TARGET, operating_points
from .metrics import Labels

StudyBy = Literal["study", "group"]
"""The column that identifies studies; ``group`` is for tables without studies."""

NO_STUDIES = "the table has no studies"


@dataclass(frozen=True, slots=True)
class Joined:
    """N pictures aggregated to S studies, sorted by key.

    Attributes:
        first: (S,) row of the first picture of each.
        labels: (S,) whether any picture is positive.
        scores: (S,) highest score of the pictures.
        pictures: (S,) number of pictures.
    """

    first: NDArray[np.intp]
    labels: NDArray[np.bool_]
    scores: NDArray[Any]
    pictures: NDArray[np.intp]


def join(keys: NDArray[np.str_], labels: NDArray[np.bool_], scores: NDArray[Any]) -> Joined:
    """Aggregate pictures to studies.

    Args:
        keys: (N,) study of each picture.
        labels: (N,) whether it is positive.
        scores: (N,) its probability, never NaN.
    """
    names, first, member = np.unique(keys, return_index=True, return_inverse=True)
    positive = np.bincount(member, labels, len(names)) > 0
    highest = np.full(len(names), -np.inf, scores.dtype)
    np.maximum.at(highest, member, scores)
    return Joined(first, positive, highest, np.bincount(member, minlength=len(names)))


@dataclass(frozen=True, slots=True)
class StudyPoints:
    """Operating points for whole studies, or the reason why there are none.

    Attributes:
        points: By name; may be empty.
        reason: Reason why there are none; empty otherwise.
    """

    points: Mapping[str, StoredStudyPoint] = field(default_factory=dict)
    reason: str = ""


def fit_study_points(
    keys: NDArray[np.str_], labels: Labels, scores: Array, by: StudyBy = "study",
    sensitivity_target: float = TARGET, specificity_target: float = TARGET,
    source: str = "the validation split", plain: NDArray[np.bool_] | None = None,
) -> StudyPoints:  # fmt: skip
    """:func:`stages.statistics.calibration.operating_points` for studies instead of pictures.

    The highest of several probabilities exceeds a threshold for pictures more often by chance;
    these thresholds are fitted to that highest probability.

    Args:
        keys: (N,) study of each picture; pictures with an empty key are ignored. An augmented view
            of a study has another key.
        labels: (N,) 0 or 1.
        scores: (N,) calibrated probabilities.
        by: Column of the keys, for the text of the rule.
        sensitivity_target: Target of *sensitive*, in (0, 1).
        specificity_target: Target of *specific*, in (0, 1).
        source: Source of the pictures, for the text of the rule.
        plain: (N,) which rows are unaugmented pictures, and so which studies are cases; see
            :func:`stages.statistics.calibration.operating_points`.
    """
    named = keys != ""
    if not named.any():
        return StudyPoints(reason=NO_STUDIES)
    studies = join(keys[named], labels[named] == 1, scores[named])
    cases = np.ones(len(studies.first), bool) if plain is None else plain[named][studies.first]
    count, positives = int(cases.sum()), int(studies.labels[cases].sum())
    several = int((studies.pictures[cases] > 1).sum())
    noun = "studies" if by == "study" else "groups used as studies"
    if min(positives, count - positives, several) < MIN_CASES:
        return StudyPoints(
            reason=f"{positives} positive and {count - positives} other {noun}, {several} of all "
            f"with several pictures; {MIN_CASES} of each are needed"
        )
    points = operating_points(
        studies.labels.astype(np.float32), studies.scores, sensitivity_target, specificity_target,
        f"{source}: the highest probability in each of {count} {noun}, {several} of them with "
        "several pictures", "study", cases,
    )  # fmt: skip
    return StudyPoints(
        {
            name: StoredStudyPoint(**point.model_dump(), aggregation=AGGREGATION)
            for name, point in points.items()
        }
    )
