"""Outcomes as JSON and back, with every digit: what a run that goes on knows of its first part.

Heatmaps and pictures are left out: they are in the outputs already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..domain import (
    Flag,
    FractureCall,
    HeaderEffect,
    ImageRef,
    OperatingPoint,
    Outcome,
    RegionCall,
    Status,
)

Json = dict[str, Any]


def to_json(outcome: Outcome) -> Json:
    """An outcome in JSON values; its file is known by other means."""
    call = outcome.region
    return {
        "frame": outcome.image.frame,
        "sha256": outcome.image.sha256,
        "status": outcome.status.value,
        "region": call and _region(call),
        "findings": [_finding(finding) for finding in outcome.findings],
        "error": outcome.error,
        "elapsed_ms": outcome.elapsed_ms,
        "bundle_digests": dict(outcome.bundle_digests),
        "header": None
        if outcome.header is None
        else {k: str(v) for k, v in outcome.header.items()},
        "flags": [[flag.name, flag.reason] for flag in outcome.flags],
        "study": outcome.study,
        "identity": None if outcome.identity is None else dict(outcome.identity),
    }


def from_json(told: Json, path: Path) -> Outcome:
    """The outcome of a file.

    Args:
        told: By :func:`to_json`.
        path: The file.
    """
    return Outcome(
        image=ImageRef(path, told["frame"], told["sha256"]),
        status=Status(told["status"]),
        region=told["region"] and _call(told["region"]),
        findings=tuple(
            FractureCall(
                one["region"],
                one["target"],
                one["probability"],
                _point(one["point"]),
                far=one["far"],
                types=one.get("types", {}),
            )
            for one in told["findings"]
        ),
        error=told["error"],
        elapsed_ms=told["elapsed_ms"],
        bundle_digests=told["bundle_digests"],
        header=told["header"],
        flags=tuple(Flag(name, reason) for name, reason in told["flags"]),
        study=told["study"],
        identity=told["identity"],
    )


def _region(call: RegionCall) -> Json:
    return {
        "probabilities": dict(call.probabilities),
        "thresholds": dict(call.thresholds),
        "density": call.density,
        "density_threshold": call.density_threshold,
        "density_far": call.density_far,
        "header_effect": call.header_effect.value,
        "veto": call.veto,
    }


def _call(told: Json) -> RegionCall:
    return RegionCall(**{**told, "header_effect": HeaderEffect(told["header_effect"])})


def _finding(finding: FractureCall) -> Json:
    point = finding.operating_point
    return {
        "region": finding.region,
        "target": finding.target,
        "probability": finding.probability,
        "point": [point.name, point.threshold, point.doubt_below],
        "far": finding.far,
        **({"types": dict(finding.types)} if finding.types else {}),
    }


def _point(values: list[Any]) -> OperatingPoint:
    return OperatingPoint(*values)
