"""From probabilities to decisions: which specialists look, and what they say. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from .domain import (
    ANY_REGION,
    Flag,
    FractureCall,
    Heatmap,
    ImageRef,
    OperatingPoint,
    RegionCall,
    StudyCall,
)
from .flags import BLANK

Seen = tuple[ImageRef, FractureCall]
"""A picture, and what a specialist says of it."""


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


def unjudged(flags: Iterable[Flag]) -> str | None:
    """Why nothing is said of a picture, whatever a network would say; None when something is.

    Networks answer to a picture of one grey value too, and it means nothing.

    Args:
        flags: Of the picture.
    """
    return next((f"{flag.name}: {flag.reason}" for flag in flags if flag.name == BLANK), None)


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


def strongest(seen: Iterable[Seen]) -> dict[str, Seen]:
    """The call with the highest probability of each specialist, and its picture.

    Among equals that of the first file by name, so that the order of the pictures plays no part.
    """
    best: dict[str, Seen] = {}
    for image, call in seen:
        found = best.get(call.region)
        if found is None or _before((image, call)) < _before(found):
            best[call.region] = image, call
    return best


def _before(seen: Seen) -> tuple[float, str, int]:
    image, call = seen
    return -call.probability, str(image.path), image.frame or 0


def decide_study(
    best: Mapping[str, Seen], points: Mapping[str, OperatingPoint]
) -> tuple[StudyCall, ...]:
    """What each specialist says of a study: its highest probability, and the point that decides.

    Args:
        best: From :func:`strongest`, over the pictures of the study that were sent to each.
        points: For whole studies, by specialist; where there is none, the point that decided on
            the pictures decides on the study too.
    """
    return tuple(
        StudyCall(
            replace(call, operating_point=points.get(region, call.operating_point)),
            image,
            "study" if region in points else "picture",
        )
        for region, (image, call) in best.items()
    )
