"""Calibration of logits, and thresholds, both fitted to the validation split."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from pipeline.bundle import FractureTypes, StoredPoint
from pipeline.domain import Array

from ..stage_spec import Types
from .metrics import Labels, sensitivity, specificity

log = logging.getLogger(__name__)

PRIOR_SD = (0.3, 0.5)
"""Prior standard deviations of log temperature and of bias."""
TARGET = 0.95
MIN_CASES = 10
"""Minimum number of cases of each label for fitting thresholds; with fewer they are noise."""
FALSE_ACCEPT_COST = 3.0
"""Cost of a verdict on an unsupported picture, relative to that of a refused supported one."""
LEAST_ROUTE, MOST_ROUTE = 0.2, 0.95
"""Limits of the router's thresholds.

At another hospital the density gate may refuse less than on validation pictures, so the router
never fires on little evidence. Of the lower limits 0.1, 0.15, 0.2, 0.25, 0.3 and 0.4, 0.2 let in
the fewest unsupported validation pictures (.018) among those that answered the most supported ones
(.942), under the shifts of ``fxpipe evaluate --shifts``.
"""
POINTS = ("sensitive", "balanced", "specific")
DEFAULT_POINT = "balanced"


def fit_calibration(labels: Labels, logits: Array) -> tuple[float, float]:
    """Temperature and bias with probability = sigmoid(logit / temperature + bias).

    Platt scaling (Platt 1999) with a normal prior around temperature 1 and bias 0, which limits
    the influence of few positives. The bias compensates the class weights of the loss.

    Args:
        labels: (N,) 0, 1 or NaN.
        logits: (N,) raw logits.
    """
    known = ~np.isnan(labels)
    targets, values = labels[known].astype(float), logits[known].astype(float)
    if len(np.unique(targets)) < 2:
        return 1.0, 0.0

    def loss(parameters: np.ndarray) -> float:
        log_temperature, bias = parameters
        z = values * np.exp(-log_temperature) + bias
        fit = np.logaddexp(0.0, z) - targets * z
        prior = (log_temperature / PRIOR_SD[0]) ** 2 + (bias / PRIOR_SD[1]) ** 2
        return float(fit.sum() + prior / 2)

    log_temperature, bias = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(log_temperature)), float(bias)


def probabilities(logits: Array, temperature: Array, bias: Array) -> Array:
    """(N, K) logits → (N, K) calibrated probabilities, as the exported graph computes them."""
    calibrated: Array = expit(logits / temperature + bias).astype(np.float32)
    return calibrated


def fit_types(types: Types, targets: Array, logits: Array) -> FractureTypes:
    """The calibration of fracture types.

    For sigmoid each type has a temperature and a bias, see :func:`fit_calibration`; for softmax
    all have one temperature (Guo et al. 2017, arXiv 1706.04599), with the same prior, and no bias.

    Args:
        types: Names and activation.
        targets: (N, T) 0, 1 or NaN.
        logits: (N, T) raw.
    """
    if types.activation == "sigmoid":
        pairs = [fit_calibration(targets[:, k], logits[:, k]) for k in range(len(types.labels))]
    else:
        known = ~np.isnan(targets).any(1)
        pairs = [(_temperature(targets[known], logits[known]), 0.0)] * len(types.labels)
    temperature, bias = zip(*pairs, strict=True)
    return FractureTypes(
        labels=types.labels, activation=types.activation, temperature=temperature, bias=bias
    )


def _temperature(targets: Array, logits: Array) -> float:
    def loss(parameters: np.ndarray) -> float:
        scaled = log_softmax(logits.astype(float) * np.exp(-parameters[0]), axis=1)
        return float(-(targets * scaled).sum() + (parameters[0] / PRIOR_SD[0]) ** 2 / 2)

    return float(np.exp(minimize(loss, np.zeros(1), method="Nelder-Mead").x[0]))


def type_probabilities(types: FractureTypes, logits: Array) -> Array:
    """(N, T) logits → (N, T) calibrated probabilities, as the exported graph computes them."""
    scaled: Array = (logits / np.array(types.temperature) + np.array(types.bias)).astype(np.float32)
    values = softmax(scaled, axis=1) if types.activation == "softmax" else expit(scaled)
    calibrated: Array = values.astype(np.float32)
    return calibrated


def route_labels(targets: Array) -> Array:
    """(N, R) labels for :func:`route_threshold`: 0 only where no region is in view.

    A picture of another region that fires too is not counted, because it only gets a further
    specialist. Without unsupported pictures the targets are returned unchanged.

    Args:
        targets: (N, R) 0, 1 or NaN: which regions are in view.
    """
    unsupported = (targets == 0).all(axis=1)
    if not unsupported.any():
        return targets
    labels: Array = np.where((targets == 1) | unsupported[:, None], targets, np.float32(np.nan))
    return labels


def route_threshold(labels: Labels, scores: Array) -> float:
    """The probability from which a region fires: smallest weighted sum of the two error rates.

    A verdict on an unsupported picture costs :data:`FALSE_ACCEPT_COST` times a refused supported
    one. The rates do not depend on the class frequencies, so a table with many unsupported
    pictures does not make the router refuse more supported ones. Among equally good thresholds,
    the middle of the widest gap (in logit) is chosen.

    Args:
        labels: (N,) 1 with the region in view, 0 with nothing supported in view, or NaN.
        scores: (N,) calibrated probabilities.
    """
    known = ~np.isnan(labels)
    positive, values = labels[known] == 1, np.clip(scores[known].astype(float), 1e-6, 1 - 1e-6)
    edges = np.unique(np.concatenate([[1e-6], values, [1 - 1e-6]]))
    logit = np.log(edges / (1 - edges))
    middles = 1 / (1 + np.exp(-(logit[1:] + logit[:-1]) / 2))
    counts = np.where(positive, max(positive.sum(), 1), max((~positive).sum(), 1))
    weight = np.where(positive, 1.0, FALSE_ACCEPT_COST) / counts
    errors = np.array([weight[(values >= t) != positive].sum() for t in middles])
    gaps = np.where(errors <= errors.min() + 1e-9, np.diff(logit), -1.0)
    return float(np.clip(middles[gaps.argmax()], LEAST_ROUTE, MOST_ROUTE))


def operating_points(
    labels: Labels, scores: Array, sensitivity_target: float = TARGET,
    specificity_target: float = TARGET, source: str = "the validation split",
    case: str = "picture", plain: NDArray[np.bool_] | None = None,
) -> Mapping[str, StoredPoint]:  # fmt: skip
    """*sensitive*, *balanced* and *specific*, with their figures on the validation pictures.

    The thresholds of *sensitive* and *specific* are quantiles in the sense of split conformal
    prediction (Vovk et al. 2005; Lei et al. 2018, doi 10.1080/01621459.2017.1307116): a new
    fractured picture from the same source is called with at least the target probability,
    on average over draws of the validation split. With fewer than 1 / (1 - target) cases no
    threshold can guarantee that; then all of them are called, and the rule states it. Without
    cases of both labels no point is defined: the threshold is 0.5, and the rule states it.

    The thresholds increase from *sensitive* over *balanced* to *specific*. If the labels are
    separated so well that the quantiles are in reverse order, *sensitive* is lowered and *specific*
    raised to *balanced*, which keeps both guarantees.

    A picture below the threshold of its point and at or above that of *sensitive* is *uncertain*:
    too suspicious for negative. So *negative* means the same at every point.

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) calibrated probabilities.
        sensitivity_target: Target of *sensitive*, in (0, 1).
        specificity_target: Target of *specific*, in (0, 1).
        source: Source of the pictures, for the text of the rule.
        case: Name of a case, for the text of the rule.
        plain: (N,) which rows are unaugmented pictures; the others are further views of the same
            pictures. Thresholds are fitted to all rows, but views are not separate cases: the
            guarantees count pictures, and sensitivity and specificity are those of plain rows.
            None if every row is plain.
    """
    plain = np.ones(len(labels), bool) if plain is None else plain
    positives, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    if len(positives) == 0 or len(negatives) == 0:
        undefined = f"undefined, too few cases ({len(positives)} positive, {len(negatives)} other)"
        log.warning("operating points are %s in %s: 0.5 is used", undefined, source)
        chosen = dict.fromkeys(POINTS, (0.5, f"{undefined}: 0.5 is used"))
    else:
        candidates = np.unique(scores)
        uneven = [abs(np.mean(positives >= t) - np.mean(negatives < t)) for t in candidates]
        cases, others = (int((labels[plain] == value).sum()) for value in (1, 0))
        missed, sensitivity_note = _allowed_errors(len(positives), cases, sensitivity_target)
        alarms, specificity_note = _allowed_errors(len(negatives), others, specificity_target)
        above = np.nextafter(negatives[len(negatives) - 1 - alarms], np.float32(1))
        even = candidates[int(np.argmin(uneven))]
        lowered = ", lowered to balanced" if positives[missed] > even else ""
        raised = ", raised to balanced" if above < even else ""
        chosen = {
            "sensitive": (
                min(positives[missed], even),
                f"sensitivity {sensitivity_target:g} for a new {case}{sensitivity_note}{lowered}",
            ),
            "balanced": (even, "sensitivity nearest specificity"),
            "specific": (
                max(above, even),
                f"specificity {specificity_target:g} for a new {case}{specificity_note}{raised}",
            ),
        }
    doubt = float(chosen["sensitive"][0])
    return {
        name: StoredPoint(
            threshold=min(float(threshold), 1.0),
            doubt_below=min(float(threshold), doubt, 1.0),
            rule=f"{rule}, from {source}",
            sensitivity=sensitivity(labels[plain], scores[plain] >= threshold),
            specificity=specificity(labels[plain], scores[plain] >= threshold),
        )
        for name, (threshold, rule) in chosen.items()
    }


def _allowed_errors(rows: int, cases: int, target: float) -> tuple[int, str]:
    """Number of rows that may be on the wrong side of a threshold, and a caveat.

    Args:
        rows: Number of rows of one label, including all views of a case.
        cases: Number of cases of that label.
        target: Target rate.
    """
    allowed = int(np.floor((1 - target) * (cases + 1) + 1e-9))
    if allowed == 0:
        return 0, f" not guaranteed with {cases} cases: none of them is missed"
    return round(allowed * rows / cases) - 1, ""
