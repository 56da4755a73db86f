"""From probabilities to decisions: which specialists look, and what they say. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .domain import FractureCall, OperatingPoint, RegionCall


def route(probabilities: Mapping[str, float], thresholds: Mapping[str, float]) -> RegionCall:
    """Decide which regions a picture shows; several may fire, or none.

    Args:
        probabilities: Calibrated probability in [0, 1] of each region, each on its own.
        thresholds: The probability from which each region fires.

    Raises:
        ValueError: The regions differ, or a probability is no number in [0, 1].
    """
    return RegionCall(dict(probabilities), dict(thresholds))


def refusal(call: RegionCall, specialists: Collection[str]) -> str | None:
    """Why a picture gets no verdict at all; None when some specialist looks.

    Fail closed: no region fired, or only regions that nobody here can judge.
    """
    if call.reason is not None:
        return call.reason
    if any(region in specialists for region in call.fired):
        return None
    return (
        f"recognised as {', '.join(call.fired)}, for which there is no specialist; there is "
        f"one for {', '.join(sorted(specialists)) or 'nothing'}"
    )


def decide(region: str, target: str, probability: float, point: OperatingPoint) -> FractureCall:
    """Apply an operating point to what a specialist says.

    Args:
        region: The specialist.
        target: What its labels meant: ``fracture`` or ``abnormality``.
        probability: Calibrated, in [0, 1].
        point: The rule.

    Raises:
        ValueError: The probability is no number in [0, 1].
    """
    return FractureCall(region, target, probability, point)
