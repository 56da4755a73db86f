"""Figures that were published with weights, for comparison with those of the service."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bundle import Estimate, JudgeSpec
from ..runtime.session import Weights
from .agreement import Rate

log = logging.getLogger(__name__)

EVALUATION = "evaluation.json"
Json = dict[str, Any]


def card_of(weights: Weights, folder: Path, digests: Mapping[str, str], point: str | None) -> Json:
    """The figures of the weights that the service uses.

    Args:
        weights: The networks.
        folder: Their folder.
        digests: SHA-256 by bundle name.
        point: Name of the operating point; None for the default of each bundle.

    Returns:
        ``types``: whether the weights classify types of fracture. ``points`` with sensitivity and
        specificity by region, from the contracts; ``positive`` and
        ``unsupported`` with the shares of positive findings and of refused pictures of a supported
        region in the test split, from the ``evaluation.json`` of the folder; None if that file is
        missing or was measured with other weights. Rates have ``value``, ``low`` and ``high``.
    """
    points = {}
    for region, stage in weights.fracture.items():
        if isinstance(stage.spec, JudgeSpec):
            stored = stage.spec.operating_points[point or stage.spec.default_point]
            points[region] = {
                "sensitivity": _rate(stored.sensitivity), "specificity": _rate(stored.specificity),
            }  # fmt: skip
    return {"types": weights.has_types, "points": points, **_shares(folder / EVALUATION, digests)}


def _rate(estimate: Estimate) -> Json:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _shares(path: Path, digests: Mapping[str, str]) -> Json:
    none: Json = {"positive": None, "unsupported": None}
    try:
        content = json.loads(path.read_bytes())
        measured = content["facts"]["bundles"]
        if any(measured[name]["sha256"] != digest for name, digest in digests.items()):
            log.info("%s: measured with other weights; not used", path)
            return none
        routed = content["fracture"]["pooled"]["routed"]
        rates = routed["network"]
        positives, pairs = routed["positives"], routed["pairs"]
        found = rates["sensitivity"]["value"] * positives
        found += (1.0 - rates["specificity"]["value"]) * (pairs - positives)
        refused = content["gate"]["refused"]["supported"]["shares"]["either"]
        groups = routed["groups"]  # pictures of one patient are not independent
        return {
            "positive": Rate.of(found / pairs * groups, groups).to_json(),
            "unsupported": {name: float(refused[name]) for name in ("value", "low", "high")},
        }
    except FileNotFoundError:
        return none
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        log.warning("%s: cannot be used (%s)", path, type(error).__name__)
        return none
