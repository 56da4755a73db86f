"""Figures of whole studies, compared with those of their pictures. Pure functions.

The highest of several probabilities exceeds a threshold more often than each of them, by chance
alone. A separate figure measures the cost in specificity; it resamples pictures and studies
together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.bundle import Estimate
from pipeline.domain import REGIONS

from ..statistics.bootstrap import Flags, Numbers, drawn_weights, interval
from ..statistics.metrics import BOOTSTRAPS, Cases, binary_figures
from ..statistics.study_thresholds import join
from .figures import IN_VIEW, POOLED, ROUTED, Figures, Settings, labelled, measured, members

AT_PICTURE, AT_STUDY = "picture threshold", "study threshold"
THRESHOLDS = {AT_PICTURE: "threshold", AT_STUDY: "study_threshold"}
"""Threshold for pictures and studies, and the prefix of its columns."""
STUDY_SETS = (IN_VIEW, ROUTED)
NO_POINT = "not every bundle has a threshold for studies"
RATES = ("sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class StudyCases:
    """The same N pictures as single cases and as S studies.

    Attributes:
        pictures, studies: Cases, called at the threshold of the chosen column.
        sizes: (S,) number of pictures of each study.
        undecided: Whether a case has no such threshold.
    """

    pictures: Cases
    studies: Cases
    sizes: NDArray[np.intp]
    undecided: bool


def study_cases(table: pd.DataFrame, region: str, name: str, column: str, by: str) -> StudyCases:
    """Cases of the labelled pictures of a set (see :data:`.figures.SETS`) with a known study.

    Args:
        table: Predictions.
        region: A region, ``all``, or pooled: one case for each study and region.
        name: Name of the set.
        column: Prefix of the threshold columns.
        by: The column that identifies studies.
    """
    regions = REGIONS if region == POOLED else (region,)
    parts = [_cases(table, each, name, column, by) for each in regions]
    keys, labels, scores, thresholds, groups = (np.concatenate(x) for x in zip(*parts, strict=True))
    with np.errstate(invalid="ignore"):
        pictures = Cases(labels, scores, scores >= thresholds, groups)
    joined = join(keys, labels, scores)
    # A picture that is far from the training pictures has a different threshold.
    calls = join(keys, pictures.calls, scores).labels
    studies = Cases(joined.labels, joined.scores, calls, groups[joined.first])
    return StudyCases(pictures, studies, joined.pictures, bool(np.isnan(thresholds).any()))


def _cases(
    table: pd.DataFrame, region: str, name: str, column: str, by: str
) -> tuple[NDArray[np.str_], Flags, Numbers, Numbers, NDArray[np.str_]]:
    """Key, label, probability, threshold and group of each picture of a set."""
    scores = table[f"fracture_{region}"].to_numpy(np.float64)
    known = (table[by] != "").to_numpy(bool) & ~np.isnan(scores)
    rows = table[members(table, region, name) & labelled(table) & known]
    return (
        (f"{region} " + rows[by]).to_numpy(str),
        (rows["label"] == 1).to_numpy(bool),
        rows[f"fracture_{region}"].to_numpy(np.float64),
        rows[f"{column}_{region}"].to_numpy(np.float64),
        rows["group"].to_numpy(str),
    )


def study_figures(table: pd.DataFrame, settings: Settings) -> Figures | None:
    """Figures by region (and pooled), then by set of pictures; None if no row has a study.

    Returns:
        ``studies``, ``positives``, ``several`` (studies of more than one picture), ``pictures``,
        ``positive_pictures``, ``groups``; ``auc`` of ``pictures`` and of ``studies``; and under
        ``at`` for each of :data:`THRESHOLDS` ``sensitivity`` and ``specificity`` of ``pictures``
        and of ``studies``, and ``specificity_cost``: that of pictures minus that of studies.
    """
    if not (table[settings.study_by] != "").any():
        return None
    return {
        region: {name: _figures(table, region, name, settings) for name in STUDY_SETS}
        for region in measured(table)
    }


def _figures(table: pd.DataFrame, region: str, name: str, settings: Settings) -> Figures:
    by_threshold = {
        threshold: study_cases(table, region, name, column, settings.study_by)
        for threshold, column in THRESHOLDS.items()
    }
    cases = by_threshold[AT_PICTURE]
    at = {threshold: _at(each, settings.seed) for threshold, each in by_threshold.items()}
    return {
        "studies": len(cases.studies),
        "positives": int(cases.studies.labels.sum()),
        "several": int((cases.sizes > 1).sum()),
        "pictures": len(cases.pictures),
        "positive_pictures": int(cases.pictures.labels.sum()),
        "groups": len(set(cases.pictures.groups)),
        "auc": {level: at[AT_PICTURE][level]["auc"] for level in ("pictures", "studies")},
        "at": {
            threshold: {
                level: {rate: part[level][rate] for rate in RATES}
                for level in ("pictures", "studies")
            }
            | {"specificity_cost": part["specificity_cost"]}
            for threshold, part in at.items()
        },
    }


def _at(cases: StudyCases, seed: int) -> Figures:
    """Figures at one threshold."""
    if cases.undecided:
        undefined = Estimate(value=None, note=NO_POINT)
        rates = dict.fromkeys(RATES, undefined)
        return {"pictures": rates, "studies": rates, "specificity_cost": undefined}
    return {
        "pictures": binary_figures(cases.pictures, seed=seed),
        "studies": binary_figures(cases.studies, seed=seed),
        "specificity_cost": specificity_cost(cases.pictures, cases.studies, seed),
    }


def specificity_cost(pictures: Cases, studies: Cases, seed: int) -> Estimate:
    """Specificity of pictures minus that of their studies, with a 95 % interval.

    Each bootstrap draw takes a group's pictures and studies together.
    """
    if pictures.labels.all() or studies.labels.all():
        missing = "picture" if pictures.labels.all() else "study"
        return Estimate(value=None, note=f"no negative {missing}")
    value = float((~pictures.calls[~pictures.labels]).mean())
    value -= float((~studies.calls[~studies.labels]).mean())
    groups = [*pictures.groups, *studies.groups]
    drawn = []
    for weights in drawn_weights(groups, BOOTSTRAPS, seed):
        first, second = np.split(weights, [len(pictures)], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn.append(_specificity(pictures, first) - _specificity(studies, second))
    limits = interval(np.concatenate(drawn))
    if limits is None:
        return Estimate(value=value, note="no interval: too few groups")
    low, high = limits
    if low == high:
        return Estimate(value=value, note="no interval: every draw of groups gives the same")
    return Estimate(value=value, low=low, high=high)


def _specificity(cases: Cases, weights: Numbers) -> Numbers:
    negative = ~cases.labels
    shares: Numbers = weights @ (negative & ~cases.calls) / (weights @ negative)
    return shares
