"""Outcomes as JSON and back, with every digit: in the journal of a run, and from its readers.

Heatmaps and pictures are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .domain import Flag, ImageRef
from .outcome import FractureCall, HeaderEffect, OperatingPoint, Outcome, RegionCall, Status
from .source import Source

Json = dict[str, Any]


def to_json(outcome: Outcome) -> Json:
    """An outcome in JSON values; its source is known by other means."""
    call = outcome.region
    return {
        "frame": outcome.image.frame,
        "sha256": outcome.image.sha256,
        "status": outcome.status.value,
        "region": call and _region(call),
        "findings": [finding_to_json(finding) for finding in outcome.findings],
        "error": outcome.error,
        "elapsed_ms": outcome.elapsed_ms,
        "bundle_digests": dict(outcome.bundle_digests),
        "header": texts(outcome.header),
        "flags": flags_to_json(outcome.flags),
        "study": outcome.study,
        "identity": texts(outcome.identity),
    }


def from_json(values: Mapping[str, Any], source: Source) -> Outcome:
    """The outcome of a file, or of content in memory.

    Args:
        values: By :func:`to_json`.
        source: The file, or its content.

    Raises:
        KeyError, TypeError, ValueError: It is not what :func:`to_json` makes.
    """
    return Outcome(
        image=ImageRef.of(source, values["frame"], values["sha256"]),
        status=Status(values["status"]),
        region=values["region"] and _call(values["region"]),
        findings=tuple(finding_from_json(one) for one in values["findings"]),
        error=values["error"],
        elapsed_ms=values["elapsed_ms"],
        bundle_digests=values["bundle_digests"],
        header=texts(values["header"]),
        flags=flags_from_json(values["flags"]),
        study=values["study"],
        identity=texts(values["identity"]),
    )


def finding_to_json(finding: FractureCall) -> Json:
    """A finding without its heatmap."""
    point = finding.operating_point
    return {
        "region": finding.region,
        "target": finding.target,
        "probability": finding.probability,
        "point": point_to_json(point),
        "far": finding.far,
        **({"types": dict(finding.types)} if finding.types else {}),
    }


def finding_from_json(values: Json) -> FractureCall:
    """The finding of :func:`finding_to_json`.

    Raises:
        KeyError, TypeError, ValueError: It is not what :func:`finding_to_json` makes.
    """
    return FractureCall(
        values["region"], values["target"], values["probability"],
        OperatingPoint(*values["point"]), far=values["far"], types=values.get("types", {}),
    )  # fmt: skip


def point_to_json(point: OperatingPoint) -> list[str | float]:
    """The arguments of an operating point."""
    return [point.name, point.threshold, point.doubt_below]


def flags_to_json(flags: Iterable[Flag]) -> list[list[str]]:
    """Name and reason of each flag."""
    return [[flag.name, flag.reason] for flag in flags]


def flags_from_json(values: Iterable[Sequence[Any]]) -> tuple[Flag, ...]:
    """The flags of :func:`flags_to_json`.

    Raises:
        TypeError, ValueError: Not pairs.
    """
    return tuple(Flag(str(name), str(reason)) for name, reason in values)


def texts(values: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Values of a header as texts, by keyword; None without a header.

    Raises:
        TypeError: Not values by keyword.
    """
    return None if values is None else {str(key): str(values[key]) for key in values}


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


def _call(values: Json) -> RegionCall:
    return RegionCall(**{**values, "header_effect": HeaderEffect(values["header_effect"])})
