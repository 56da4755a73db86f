"""Metrics with confidence intervals; an undefined metric is None, never 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    precision_score,
    recall_score,
)

from pipeline.bundle import Estimate
from pipeline.domain import Array

from .bootstrap import Flags, Numbers, binary_draws, drawn_weights, interval, predictive_values

Labels = NDArray[np.float32]
BOOTSTRAPS = 1000
"""Number of bootstrap draws of every interval."""
ECE_BINS = 10


def auc(labels: Labels, scores: Array) -> float | None:
    """Area under the ROC curve over rows with a known label; None with only one class.

    Args:
        labels: (N,) 0, 1 or NaN.
        scores: (N,) any monotone score.
    """
    known = ~np.isnan(labels)
    positive = labels[known] == 1
    if positive.all() or not positive.any():
        return None
    return _rank_auc(positive, scores[known])


def _rank_auc(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """AUC from the rank sum of Mann and Whitney (1947).

    scikit-learn's function gives the same value but is twenty times slower, too slow for a
    bootstrap.
    """
    cases, controls = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores, nan_policy="raise")
    return float((ranks[positive].sum() - cases * (cases + 1) / 2) / (cases * controls))


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
        figure: Computes the figure from row numbers; returns None if it is undefined.
        groups: (N,) group of each row.
        seed: Seed of the resampling.
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


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure, and its values on resampled groups.

    Attributes:
        estimate: The value with its interval.
        draws: (:data:`BOOTSTRAPS`,) its value in each draw, NaN if undefined; empty if the figure
            itself is undefined.
    """

    estimate: Estimate
    draws: Numbers


def share(hits: NDArray[np.bool_], groups: Sequence[str]) -> Estimate:
    """:func:`drawn_share` without its draws."""
    return drawn_share(hits, groups).estimate


def drawn_share(hits: NDArray[np.bool_], groups: Sequence[str]) -> Drawn:
    """A proportion with its 95 % interval over groups.

    The interval is from a bootstrap. If all or none are hits, the bootstrap has no spread, and the
    interval is Wilson's, with the number of groups as the number of cases.

    Args:
        hits: (N,) whether each row counts.
        groups: (N,) group of each row.
    """
    if len(hits) == 0:
        return Drawn(Estimate(value=None, note="no cases"), np.zeros(0))
    if hits.all() or not hits.any():
        independent = len(set(groups))
        estimate = rate(independent if hits.all() else 0, independent)
        return Drawn(estimate, np.full(BOOTSTRAPS, hits.mean()))
    drawn = [block @ hits / block.sum(1) for block in drawn_weights(groups, BOOTSTRAPS)]
    draws = np.concatenate(drawn)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Drawn(Estimate(value=float(hits.mean()), low=float(low), high=float(high)), draws)


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


@dataclass(frozen=True, slots=True)
class Cases:
    """Labels and predictions of N cases.

    Attributes:
        labels: (N,) bool, whether positive.
        scores: (N,) float64 probability in [0, 1] of being positive.
        calls: (N,) bool, whether called positive.
        groups: (N,) str; cases of one group are not independent.
    """

    labels: Flags
    scores: Numbers
    calls: Flags
    groups: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: NDArray[np.bool_]) -> Cases:
        """The cases of a mask."""
        return Cases(self.labels[rows], self.scores[rows], self.calls[rows], self.groups[rows])


def binary_figures(
    cases: Cases, prevalences: Sequence[float] = (), seed: int = 0
) -> dict[str, Estimate]:
    """:func:`drawn_binary_figures` without their draws."""
    drawn = drawn_binary_figures(cases, prevalences, seed)
    return {name: figure.estimate for name, figure in drawn.items()}


def drawn_binary_figures(
    cases: Cases, prevalences: Sequence[float] = (), seed: int = 0
) -> dict[str, Drawn]:
    """All figures of a binary stage, each with its 95 % interval.

    The values are scikit-learn's if it has them; the intervals are percentiles over
    :data:`BOOTSTRAPS` draws of groups. If a proportion is 0 or 1, the draws have no spread, and
    the interval is Wilson's, with the number of groups as the number of cases.

    Args:
        cases: Any number of cases.
        prevalences: Shares of positives in (0, 1) for additional PPV and NPV.
        seed: Seed of the draws.

    Returns:
        By name: :data:`BINARY`, then ``ppv_at_P`` and ``npv_at_P`` for each prevalence.
    """
    reasons = _undefined(cases, prevalences)
    values = {name: f(cases) for name, f in BINARY.items() if not reasons[name]}
    if not (reasons["sensitivity"] or reasons["specificity"]):
        rates = np.array([values["sensitivity"]]), np.array([values["specificity"]])
        for p in prevalences:
            for name, value in zip(("ppv", "npv"), predictive_values(*rates, p), strict=True):
                if np.isfinite(value[0]):
                    values[f"{name}_at_{p:g}"] = float(value[0])
    drawn: dict[str, list[Numbers]] = {name: [] for name in values}
    for weights in drawn_weights(cases.groups.tolist(), BOOTSTRAPS, seed) if len(cases) else ():
        bins = np.eye(ECE_BINS, dtype=bool)[probability_bins(cases.scores)]
        parts = binary_draws(cases.labels, cases.scores, cases.calls, weights, bins, prevalences)
        for name in values:
            drawn[name].append(parts[name])
    figures = {}
    for name, reason in reasons.items():
        estimate, draws = Estimate(value=None, note=reason), np.zeros(0)
        if name in values:
            draws = np.concatenate(drawn[name])
            estimate = _with_interval(name, values[name], draws, cases)
        figures[name] = Drawn(estimate, draws)
    return figures


def expected_calibration_error(labels: Flags, scores: Numbers) -> float:
    """ECE over :data:`ECE_BINS` bins of equal width: Σ n_bin / N · |mean p - share positive|.

    Naeini, Cooper and Hauskrecht 2015 (Bayesian binning). Bins are closed below and open above,
    the last closed on both sides.

    Args:
        labels: (N,) bool, N at least 1.
        scores: (N,) probabilities in [0, 1].
    """
    gaps = np.bincount(probability_bins(scores), scores - labels, ECE_BINS)
    return float(np.abs(gaps).sum() / len(scores))


def probability_bins(scores: Numbers) -> NDArray[np.intp]:
    """(N,) number of the bin, 0 to ``ECE_BINS - 1``, of each probability in [0, 1]."""
    edges = np.linspace(0, 1, ECE_BINS + 1)[1:-1]
    return np.searchsorted(edges, scores, side="right")


BINARY: Mapping[str, Callable[[Cases], float]] = {
    "auc": lambda c: _rank_auc(c.labels, c.scores),
    "average_precision": lambda c: float(average_precision_score(c.labels, c.scores)),
    "accuracy": lambda c: float(accuracy_score(c.labels, c.calls)),
    "balanced_accuracy": lambda c: float(balanced_accuracy_score(c.labels, c.calls)),
    "sensitivity": lambda c: float(recall_score(c.labels, c.calls)),
    "specificity": lambda c: float(recall_score(~c.labels, ~c.calls)),
    "ppv": lambda c: float(precision_score(c.labels, c.calls)),
    "npv": lambda c: float(precision_score(~c.labels, ~c.calls)),
    "kappa": lambda c: float(cohen_kappa_score(c.labels, c.calls)),
    "brier": lambda c: float(brier_score_loss(c.labels, c.scores)),
    "ece": lambda c: expected_calibration_error(c.labels, c.scores),
}
"""The figures of :func:`binary_figures`, in their order; PPV and NPV are those at the share of
positives among the cases."""

_PROPORTIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")


def _undefined(cases: Cases, prevalences: Sequence[float]) -> dict[str, str]:
    """Reason why each figure is undefined; empty if it is defined."""
    both = "" if len(np.unique(cases.labels)) == 2 else "needs both positive and negative cases"
    reasons = dict.fromkeys(BINARY, "" if len(cases) else "no cases")
    for name in ("auc", "average_precision", "balanced_accuracy", "kappa"):
        reasons[name] = reasons[name] or both
    for name, needed, reason in (
        ("sensitivity", cases.labels, "no positive cases"),
        ("specificity", ~cases.labels, "no negative cases"),
        ("ppv", cases.calls, "no case was called positive"),
        ("npv", ~cases.calls, "no case was called negative"),
    ):
        reasons[name] = "" if needed.any() else reasons[name] or reason
    for p in prevalences:
        for name in ("ppv", "npv"):
            reasons[f"{name}_at_{p:g}"] = reasons["sensitivity"] or reasons["specificity"]
            reasons[f"{name}_at_{p:g}"] = reasons[f"{name}_at_{p:g}"] or reasons[name]
    return reasons


def _with_interval(name: str, value: float, draws: Numbers, cases: Cases) -> Estimate:
    if name in _PROPORTIONS and value in (0.0, 1.0):
        among = {
            "sensitivity": cases.labels,
            "specificity": ~cases.labels,
            "ppv": cases.calls,
            "npv": ~cases.calls,
        }.get(name, np.ones(len(cases), bool))
        independent = len(set(cases.groups[among]))
        return rate(round(value * independent), independent)
    limits = interval(draws)
    if limits is None:
        return Estimate(value=value, note="no interval: too few groups")
    low, high = limits
    if low == high:  # one group, or a perfect score: not evidence of certainty
        return Estimate(value=value, note="no interval: every draw of groups gives the same")
    return Estimate(value=value, low=low, high=high)
