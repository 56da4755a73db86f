"""From probabilities to decisions: which specialists look, and what they say. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .domain import ANY_REGION, FractureCall, Heatmap, OperatingPoint, RegionCall


def route(probabilities: Mapping[str, float], thresholds: Mapping[str, float]) -> RegionCall:
    """Decide which regions a picture shows; several may fire, or none.

    Args:
        probabilities: Calibrated probability in [0, 1] of each region, each on its own.
        thresholds: The probability from which each region fires.

    Raises:
        ValueError: The regions differ, or a probability is no number in [0, 1].
    """
    return RegionCall(dict(probabilities), dict(thresholds))


def examiners(call: RegionCall | None, specialists: Collection[str]) -> tuple[str, ...]:
    """The specialists that look at a picture, each once.

    A region that fired goes to its own specialist, else to the one for all regions, else to
    nobody.

    Args:
        call: The routing decision; None where there is no region stage: then all look.
        specialists: The regions that have one, ``all`` among them perhaps.
    """
    if call is None:
        return tuple(specialists)
    wanted = (region if region in specialists else ANY_REGION for region in call.fired)
    return tuple(name for name in dict.fromkeys(wanted) if name in specialists)


def refusal(call: RegionCall | None, specialists: Collection[str]) -> str | None:
    """Why a picture gets no verdict at all; None when some specialist looks.

    Fail closed: no region fired, or only regions that nobody here can judge.

    Args:
        call: See :func:`examiners`.
        specialists: Likewise.
    """
    if call is None or examiners(call, specialists):
        return None
    if call.reason is not None:
        return call.reason
    return (
        f"recognised as {', '.join(call.fired)}, for which there is no specialist; there is "
        f"one for {', '.join(sorted(specialists)) or 'nothing'}"
    )


def decide(
    region: str,
    target: str,
    probability: float,
    point: OperatingPoint,
    heatmap: Heatmap | None = None,
) -> FractureCall:
    """Apply an operating point to what a specialist says.

    Args:
        region: The specialist.
        target: What its labels meant: ``fracture`` or ``abnormality``.
        probability: Calibrated, in [0, 1].
        point: The rule.
        heatmap: Where it is seen.

    Raises:
        ValueError: The probability is no number in [0, 1].
    """
    return FractureCall(region, target, probability, point, heatmap)
