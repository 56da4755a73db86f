"""Figures with intervals; an undefined figure is None, never 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from pipeline.bundle import Estimate
from pipeline.domain import Array

Labels = NDArray[np.float32]
BOOTSTRAPS = 1000


def auc(labels: Labels, scores: Array) -> float | None:
    """Area under the ROC curve over rows with a known label; None with only one class.

    Args:
        labels: (N,) 0, 1 or NaN.
        scores: (N,) any monotone score.
    """
    known = ~np.isnan(labels)
    if len(np.unique(labels[known])) < 2:
        return None
    return float(roc_auc_score(labels[known], scores[known]))


def auc_estimate(labels: Labels, scores: Array, groups: Sequence[str], seed: int = 0) -> Estimate:
    """AUC with a 95 % interval by bootstrap over groups."""
    return bootstrap(lambda rows: auc(labels[rows], scores[rows]), groups, seed)


def bootstrap(
    figure: Callable[[NDArray[np.intp]], float | None], groups: Sequence[str], seed: int = 0
) -> Estimate:
    """A figure with the 2.5 and 97.5 percentiles of its values on resampled groups.

    Pictures of one group are not independent, so groups are drawn, not pictures (cluster
    bootstrap; Field and Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x).

    Args:
        figure: Computes it from row numbers; None where undefined.
        groups: (N,) group of each row.
        seed: Of the resampling.
    """
    value = figure(np.arange(len(groups)))
    if value is None:
        return Estimate(value=None, note="needs both positive and negative cases")
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    rows_of = [np.flatnonzero(member == g) for g in range(member.max() + 1)]
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(BOOTSTRAPS):
        chosen = random.integers(0, len(rows_of), len(rows_of))
        drawn = figure(np.concatenate([rows_of[g] for g in chosen]))
        if drawn is not None:
            draws.append(drawn)
    if not draws:
        return Estimate(value=value, note="no interval: too few groups")
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high))


def share(hits: NDArray[np.bool_], groups: Sequence[str]) -> Estimate:
    """A proportion with its 95 % interval over groups.

    By bootstrap; but where all or none are hits it sees no spread, and Wilson's interval for as
    many independent cases as there are groups is given.

    Args:
        hits: (N,) whether each row counts.
        groups: (N,) group of each row.
    """
    if len(hits) == 0:
        return Estimate(value=None, note="no cases")
    if hits.all() or not hits.any():
        independent = len(set(groups))
        return rate(independent if hits.all() else 0, independent)
    return bootstrap(lambda rows: float(hits[rows].mean()), groups)


def rate(hits: int, of: int) -> Estimate:
    """A proportion with its 95 % Wilson interval (Wilson 1927)."""
    if of == 0:
        return Estimate(value=None, note="no cases")
    interval = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    return Estimate(value=hits / of, low=float(interval.low), high=float(interval.high))


def sensitivity(labels: Labels, calls: NDArray[np.bool_]) -> Estimate:
    """Share of the known positives that are called."""
    positive = labels == 1
    return rate(int(calls[positive].sum()), int(positive.sum()))


def specificity(labels: Labels, calls: NDArray[np.bool_]) -> Estimate:
    """Share of the known negatives that are not called."""
    negative = labels == 0
    return rate(int((~calls[negative]).sum()), int(negative.sum()))
