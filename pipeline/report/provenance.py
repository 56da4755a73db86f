"""Facts about a run for its report: software, networks, operating points, settings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .. import version
from ..bundle import Estimate
from ..config import RunConfig
from ..domain import ANY_REGION
from ..runtime.session import Weights
from .record import plain


def about_run(weights: Weights, config: RunConfig, started: datetime) -> dict[str, Any]:
    """Facts about a run, none of them about a picture.

    Args:
        weights: Every network of the run.
        config: Settings of the run.
        started: Start time with time zone.
    """
    settings = config.model_dump(mode="json") | {"heatmaps": config.shown_heatmaps}
    return {
        "version": version(),
        "started": time_text(started),
        "device": weights.device,
        "precision": weights.precision.value,
        "networks": [
            {
                "name": part.spec.name,
                "bundle": part.bundle,
                "sha256": part.digest,
                "architecture": part.spec.provenance.architecture,
                "data": part.spec.provenance.data,
                "created": part.spec.provenance.created[:10],
            }
            for part in weights.networks
        ],
        "points": [_point(weights, region) for region in weights.fracture],
        "routes": dict(weights.region.spec.route_thresholds) if weights.region else {},
        "gate": weights.gate and weights.gate.model_dump(mode="json"),
        "gate_warning": weights.gate_warning,
        "settings": {key: _setting(value) for key, value in settings.items()},
        "names_patients": config.identifiers == "keep",
    }


def time_text(when: datetime) -> str:
    """A time in seconds with its UTC offset: ``2026-01-05 03:12:45+01:00``."""
    return when.isoformat(" ", "seconds")


def _point(weights: Weights, region: str) -> dict[str, Any]:
    """The operating point of a specialist, with the rates on the pictures that it was chosen on."""
    spec, point = weights.fracture[region].spec, weights.points[region]
    stored = spec.operating_points[point.name]
    return {
        "specialist": "any region" if region == ANY_REGION else region,
        "target": spec.target,
        "name": point.name,
        "threshold": point.threshold,
        "doubt_below": point.doubt_below,
        "rule": stored.rule,
        "sensitivity": _rate(stored.sensitivity),
        "specificity": _rate(stored.specificity),
    }


def _setting(value: Any) -> str:
    """A setting as it is written in a TOML file."""
    if value is None:
        return "default"
    return str(value).lower() if isinstance(value, bool) else plain(str(value))


def _rate(estimate: Estimate) -> str:
    """A rate with its interval: ``0.794 [0.545, 0.944]``, or why there is none."""
    if estimate.value is None:
        return f"unknown ({estimate.note})" if estimate.note else "unknown"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
