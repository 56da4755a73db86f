"""The figures of whole studies beside those of their pictures. Pure functions of the predictions.

The highest of several probabilities passes a threshold more often than each of them, by chance
too: what that costs in specificity is a figure of its own, with pictures and studies drawn
together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.bundle import Estimate
from pipeline.domain import REGIONS

from ..metrics import BOOTSTRAPS, Cases, binary_figures
from ..resample import Flags, Numbers, drawn_weights, interval
from ..studies import join
from .figures import IN_VIEW, POOLED, ROUTED, Figures, Settings, labelled, measured, members

AT_PICTURE, AT_STUDY = "picture threshold", "study threshold"
THRESHOLDS = {AT_PICTURE: "threshold", AT_STUDY: "study_threshold"}
"""Which threshold is applied, to pictures and studies alike, and the columns that hold it."""
STUDY_SETS = (IN_VIEW, ROUTED)
NO_POINT = "not every bundle has a threshold for studies"
RATES = ("sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class Both:
    """The same N pictures by themselves and as S studies.

    Attributes:
        pictures, studies: As cases; they were called at the threshold of the picture's column.
        sizes: (S,) pictures of each study.
        undecided: Whether some case has no such threshold.
    """

    pictures: Cases
    studies: Cases
    sizes: NDArray[np.intp]
    undecided: bool


def both(table: pd.DataFrame, region: str, name: str, column: str, by: str) -> Both:
    """The labelled pictures of a set (see :data:`.figures.SETS`) whose study is known.

    Args:
        table: Predictions.
        region: A region, ``all``, or pooled: one case for each study and region.
        name: Of the set.
        column: Beginning of the columns that hold the threshold.
        by: The column that tells studies.
    """
    regions = REGIONS if region == POOLED else (region,)
    parts = [_cases(table, each, name, column, by) for each in regions]
    keys, labels, scores, thresholds, groups = (np.concatenate(x) for x in zip(*parts, strict=True))
    with np.errstate(invalid="ignore"):
        pictures = Cases(labels, scores, scores >= thresholds, groups)
    joined = join(keys, labels, scores)
    # A picture that is far from the training pictures has a threshold of its own.
    calls = join(keys, pictures.calls, scores).labels
    studies = Cases(joined.labels, joined.scores, calls, groups[joined.first])
    return Both(pictures, studies, joined.pictures, bool(np.isnan(thresholds).any()))


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
    """By region (and pooled), then by set of pictures; None where no row names its study.

    Returns:
        ``studies``, ``positives``, ``several`` (studies of more than one picture), ``pictures``,
        ``positive_pictures``, ``groups``; ``auc`` of ``pictures`` and of ``studies``; and under
        ``at`` for each of :data:`THRESHOLDS` ``sensitivity`` and ``specificity`` of ``pictures``
        and of ``studies``, and ``specificity_cost``: that of pictures less that of studies.
    """
    if not (table[settings.study_by] != "").any():
        return None
    return {
        region: {name: _figures(table, region, name, settings) for name in STUDY_SETS}
        for region in measured(table)
    }


def _figures(table: pd.DataFrame, region: str, name: str, settings: Settings) -> Figures:
    found = {
        threshold: both(table, region, name, column, settings.study_by)
        for threshold, column in THRESHOLDS.items()
    }
    one = found[AT_PICTURE]
    at = {threshold: _at(each, settings.seed) for threshold, each in found.items()}
    return {
        "studies": len(one.studies),
        "positives": int(one.studies.labels.sum()),
        "several": int((one.sizes > 1).sum()),
        "pictures": len(one.pictures),
        "positive_pictures": int(one.pictures.labels.sum()),
        "groups": len(set(one.pictures.groups)),
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


def _at(found: Both, seed: int) -> Figures:
    """Figures at one threshold."""
    if found.undecided:
        nothing = Estimate(value=None, note=NO_POINT)
        rates = dict.fromkeys(RATES, nothing)
        return {"pictures": rates, "studies": rates, "specificity_cost": nothing}
    return {
        "pictures": binary_figures(found.pictures, seed=seed),
        "studies": binary_figures(found.studies, seed=seed),
        "specificity_cost": specificity_cost(found.pictures, found.studies, seed),
    }


def specificity_cost(pictures: Cases, studies: Cases, seed: int) -> Estimate:
    """Specificity of pictures less that of their studies, with a 95 % interval.

    Each draw of groups takes a group's pictures and its studies together.
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
