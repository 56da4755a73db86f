"""From logits to probabilities that mean something, and to thresholds: validation split only."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from pipeline.bundle import FractureTypes, StoredPoint
from pipeline.domain import Array

from .metrics import Labels, sensitivity, specificity
from .spec import Types

log = logging.getLogger(__name__)

PRIOR_SD = (0.3, 0.5)
"""Standard deviation of log temperature and of bias before any data is seen."""
TARGET = 0.95
FEWEST = 10
"""Cases of each label below which thresholds would be noise, and none are fitted to a site's."""
POINTS = ("sensitive", "balanced", "specific")
DEFAULT_POINT = "balanced"


def fit_calibration(labels: Labels, logits: Array) -> tuple[float, float]:
    """Temperature and bias with probability = sigmoid(logit / temperature + bias).

    Platt scaling (Platt 1999) with a normal prior around temperature 1 and bias 0, so that a
    handful of positives cannot drive it anywhere. The bias undoes the class weights of the loss.

    Args:
        labels: (N,) 0, 1 or NaN.
        logits: (N,) raw.
    """
    known = ~np.isnan(labels)
    wanted, values = labels[known].astype(float), logits[known].astype(float)
    if len(np.unique(wanted)) < 2:
        return 1.0, 0.0

    def loss(parameters: np.ndarray) -> float:
        log_temperature, bias = parameters
        z = values * np.exp(-log_temperature) + bias
        fit = np.logaddexp(0.0, z) - wanted * z
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
    told = softmax(scaled, axis=1) if types.activation == "softmax" else expit(scaled)
    calibrated: Array = told.astype(np.float32)
    return calibrated


def route_threshold(labels: Labels, scores: Array) -> float:
    """The probability from which a region fires: smallest sum of the two error rates.

    That is the largest of Youden's index (Youden 1950). The rates do not depend on how many
    pictures of each kind there are, so a table with many pictures to refuse does not make the
    router refuse more of the others. Among equally good thresholds the middle of the widest gap
    (in logit) is taken.

    Args:
        labels: (N,) 0, 1 or NaN.
        scores: (N,) calibrated probabilities.
    """
    known = ~np.isnan(labels)
    wanted, values = labels[known] == 1, np.clip(scores[known].astype(float), 1e-6, 1 - 1e-6)
    edges = np.unique(np.concatenate([[1e-6], values, [1 - 1e-6]]))
    logit = np.log(edges / (1 - edges))
    middles = 1 / (1 + np.exp(-(logit[1:] + logit[:-1]) / 2))
    weight = 1 / np.where(wanted, max(wanted.sum(), 1), max((~wanted).sum(), 1))
    errors = np.array([weight[(values >= t) != wanted].sum() for t in middles])
    gaps = np.where(errors <= errors.min() + 1e-9, np.diff(logit), -1.0)
    return float(np.clip(middles[gaps.argmax()], 0.05, 0.95))


def operating_points(
    labels: Labels, scores: Array, sensitivity_target: float = TARGET,
    specificity_target: float = TARGET, source: str = "the validation split",
    case: str = "picture", plain: NDArray[np.bool_] | None = None,
) -> Mapping[str, StoredPoint]:  # fmt: skip
    """*sensitive*, *balanced* and *specific*, with what they do on the pictures they come from.

    The thresholds of *sensitive* and *specific* are quantiles in the sense of split conformal
    prediction (Vovk et al. 2005; Lei et al. 2018, doi 10.1080/01621459.2017.1307116): a new
    fractured picture from the same source is called with at least the target's probability,
    on average over draws of the validation split. With fewer than 1 / (1 - target) cases no
    threshold can promise that; then all of them are called, and the rule says so. Without cases of
    both labels no point is defined: 0.5 stands in, and the rule says that.

    The thresholds rise from *sensitive* over *balanced* to *specific*. Where the labels are so well
    apart that the quantiles lie the other way round, *sensitive* is lowered and *specific* raised
    to *balanced*, which only strengthens what each promises.

    Below the threshold of its point and at or above that of *sensitive* a picture is
    *uncertain*: too suspicious to be called negative. So *negative* means the same at every
    point.

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) calibrated probabilities.
        sensitivity_target: Of *sensitive*, in (0, 1).
        specificity_target: Of *specific*, in (0, 1).
        source: Where the pictures come from, for the rule's words.
        case: What is judged, likewise.
        plain: (N,) which rows are pictures as they are; the others are further views of the same
            pictures. Thresholds are fitted to all rows, but views are no cases of their own: the
            promises count pictures, and sensitivity and specificity are those of plain rows. None
            where every row is plain.
    """
    plain = np.ones(len(labels), bool) if plain is None else plain
    positives, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    if len(positives) == 0 or len(negatives) == 0:
        undefined = (
            f"undefined for want of cases ({len(positives)} positive, {len(negatives)} other)"
        )
        log.warning("operating points are %s in %s: 0.5 stands in for them", undefined, source)
        chosen = dict.fromkeys(POINTS, (0.5, f"{undefined}: 0.5 stands in"))
    else:
        candidates = np.unique(scores)
        uneven = [abs(np.mean(positives >= t) - np.mean(negatives < t)) for t in candidates]
        cases, others = (int((labels[plain] == value).sum()) for value in (1, 0))
        missed, enough = _passed_over(len(positives), cases, sensitivity_target)
        alarms, quiet = _passed_over(len(negatives), others, specificity_target)
        above = np.nextafter(negatives[len(negatives) - 1 - alarms], np.float32(1))
        even = candidates[int(np.argmin(uneven))]
        lowered = ", lowered to balanced" if positives[missed] > even else ""
        raised = ", raised to balanced" if above < even else ""
        chosen = {
            "sensitive": (
                min(positives[missed], even),
                f"sensitivity {sensitivity_target:g} for a new {case}{enough}{lowered}",
            ),
            "balanced": (even, "sensitivity nearest specificity"),
            "specific": (
                max(above, even),
                f"specificity {specificity_target:g} for a new {case}{quiet}{raised}",
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


def _passed_over(rows: int, cases: int, target: float) -> tuple[int, str]:
    """How many of the rows nearest the other side may lie beyond a threshold, and a caveat.

    Args:
        rows: Of one label, each view of a case among them.
        cases: Of that label.
        target: Of all cases.
    """
    allowed = int(np.floor((1 - target) * (cases + 1) + 1e-9))
    if allowed == 0:
        return 0, f" not promised by {cases} cases: none of them is missed"
    return round(allowed * rows / cases) - 1, ""
