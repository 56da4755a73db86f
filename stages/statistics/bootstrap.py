"""Vectorised bootstrap over groups: all draws at once, as weights of the cases.

A draw is represented by how often it contains each case, and a figure of a draw is a weighted sum.
So a thousand draws cost a few matrix products. The point values in
:mod:`stages.statistics.metrics` come from scikit-learn; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MAX_WEIGHTS = 2_000_000
"""Maximum number of weights in memory: 16 MB."""


def drawn_weights(groups: Sequence[str], draws: int, seed: int = 0) -> Iterator[Numbers]:
    """How often each bootstrap draw of the groups, with replacement, contains each case.

    Cases of one group are not independent, so groups are drawn, not cases (cluster bootstrap;
    Field and Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x).

    Args:
        groups: (N,) group of each case, N at least 1.
        draws: Number of draws.
        seed: Seed of the draws.

    Yields:
        (B, N) weights of the cases in B draws; together the blocks have all draws.
    """
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(member.max()) + 1
    random = np.random.default_rng(seed)
    block = max(1, _MAX_WEIGHTS // len(member))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        chosen = random.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count)
        yield times[:, member].astype(np.float64)


def interval(draws: Numbers) -> tuple[float, float] | None:
    """The 2.5 and 97.5 percentiles of the defined draws; None if there is none."""
    defined = draws[np.isfinite(draws)]
    if len(defined) == 0:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def binary_draws(labels: Flags, scores: Numbers, calls: Flags, weights: Numbers, bins: Flags,
                 prevalences: Sequence[float]) -> Mapping[str, Numbers]:  # fmt: skip
    """Every figure of :func:`~stages.statistics.metrics.binary_figures` in each draw, or NaN.

    Args:
        labels: (N,) whether positive.
        scores: (N,) probabilities.
        calls: (N,) whether called positive.
        weights: (B, N) from :func:`drawn_weights`.
        bins: (N, K) one-hot bin of each case's probability.
        prevalences: Additional prevalences for PPV and NPV.

    Returns:
        (B,) by name.
    """
    total = weights.sum(1)
    tp, fn = weights @ (labels & calls), weights @ (labels & ~calls)
    fp, tn = weights @ (~labels & calls), weights @ (~labels & ~calls)
    gap = scores - labels
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        agreed = (tp + tn) / total
        by_chance = ((tp + fn) * (tp + fp) + (tn + fp) * (tn + fn)) / total**2
        figures = {
            "auc": auc_draws(labels, scores, weights),
            "average_precision": average_precision_draws(labels, scores, weights),
            "accuracy": agreed,
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "kappa": (agreed - by_chance) / (1 - by_chance),
            "brier": weights @ gap**2 / total,
            "ece": np.abs(weights @ (bins * gap[:, None])).sum(1) / total,
        }
        for p in prevalences:
            figures[f"ppv_at_{p:g}"], figures[f"npv_at_{p:g}"] = predictive_values(
                sensitivity, specificity, p
            )
    return figures


def predictive_values(
    sensitivity: Numbers, specificity: Numbers, prevalence: float
) -> tuple[Numbers, Numbers]:
    """PPV and NPV at another prevalence (Bayes' rule); NaN for 0 / 0."""
    tp, fp = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    tn, fn = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    with np.errstate(divide="ignore", invalid="ignore"):
        return tp / (tp + fp), tn / (tn + fn)


def auc_draws(labels: Flags, scores: Numbers, weights: Numbers) -> Numbers:
    """(B,) share of correctly ordered pairs of a positive and a negative case; ties count half."""
    (positive, negative), _ = _descending(scores, weights, labels, ~labels)
    above = np.cumsum(positive, 1) - positive / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        value: Numbers = (above * negative).sum(1) / (positive.sum(1) * negative.sum(1))
    return value


def average_precision_draws(labels: Flags, scores: Numbers, weights: Numbers) -> Numbers:
    """(B,) precision at each threshold, averaged over the steps of recall."""
    (positive, every), _ = _descending(scores, weights, labels, np.ones_like(labels))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.nan_to_num(np.cumsum(positive, 1) / np.cumsum(every, 1))
        value: Numbers = (precision * positive).sum(1) / positive.sum(1)
    value[positive.sum(1) == every.sum(1)] = np.nan  # one class: undefined like the AUC
    return value


def risk_draws(errors: Flags, confidence: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Risk–coverage curves: error rate of the most confident cases, by their share of all.

    Args:
        errors: (N,) whether the decision on each case is wrong.
        confidence: (N,) larger is more confident; ties are added together.
        weights: (B, N).

    Returns:
        (B, T) coverage in (0, 1] and (B, T) risk in [0, 1] at each of T confidences, the
        highest first. A draw without any of the most confident cases has risk 0 at coverage 0.
    """
    (wrong, every), _ = _descending(confidence, weights, errors, np.ones_like(errors))
    taken = np.cumsum(every, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        risk = np.nan_to_num(np.cumsum(wrong, 1) / taken)
    return taken / taken[:, -1:], risk


def aurc(coverage: Numbers, risk: Numbers) -> Numbers:
    """(B,) area under risk–coverage curves: the mean risk over the cases (step function).

    Geifman and El-Yaniv 2017, arXiv 1705.08500.
    """
    area: Numbers = (np.diff(coverage, axis=1, prepend=0.0) * risk).sum(1)
    return area


def roc_draws(labels: Flags, scores: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """(B, T + 1) false and true positive rate, starting at (0, 0); NaN with only one class."""
    (positive, negative), _ = _descending(scores, weights, labels, ~labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = [np.cumsum(part, 1) / part.sum(1, keepdims=True) for part in (negative, positive)]
    false, true = (np.pad(rate, ((0, 0), (1, 0))) for rate in rates)
    return false, true


def _descending(
    scores: Numbers, weights: Numbers, *kinds: Flags
) -> tuple[tuple[Numbers, ...], Numbers]:
    """Summed weights of each kind of case per distinct score, descending; and those scores."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sums = (np.add.reduceat((weights * kind)[:, order], starts, axis=1) for kind in kinds)
    return tuple(sums), ranked[starts]
