"""From probabilities to decisions: which specialists look, and what they say. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from .domain import (
    ANY_REGION,
    Flag,
    FractureCall,
    HeaderEffect,
    HeaderUse,
    Heatmap,
    ImageRef,
    OperatingPoint,
    RegionCall,
    StudyCall,
    Verdict,
    gravest,
)
from .flags import BLANK
from .io.body_parts import body_part
from .io.terms import PROJECTIONS

Seen = tuple[ImageRef, FractureCall]
"""A picture, and what a specialist says of it."""


def route(
    probabilities: Mapping[str, float],
    thresholds: Mapping[str, float],
    density: float | None = None,
    density_threshold: float | None = None,
    density_far: float | None = None,
) -> RegionCall:
    """Decide which regions a picture shows; several may fire, or none.

    Args:
        probabilities: Calibrated probability in [0, 1] of each region, each on its own.
        thresholds: The probability from which each region fires.
        density: Similarity to the nearest training pictures, if the region stage tells it.
        density_threshold: The density below which no region fires; None for no density gate.
        density_far: The density below which the picture is far from the training pictures.

    Raises:
        ValueError: The regions differ, a probability is no number in [0, 1], the density is no
            number, or there is a threshold for it and no density.
    """
    return RegionCall(
        dict(probabilities), dict(thresholds), density, density_threshold, density_far
    )


def combine(
    call: RegionCall, header: Mapping[str, str] | None, how: HeaderUse, margin: float
) -> RegionCall:
    """Let the header speak too: one rule for what it may do to the router's decision.

    - *Veto.* Where every body part that the header names lies clear of the regions that the router
      knows (CHEST, KNEE, a mortise view), nothing fires, whatever the router found.
    - *Help.* Where it names one supported region and nothing else (HAND, a scaphoid view), and its
      modality is that of a projection radiograph, it is a second witness: that region fires from
      ``margin`` log odds below its threshold, beside those that fired. All other thresholds
      stay.
    - *Nothing else.* No header, words that say nothing, neighbours of a region (FOREARM, CLAVICLE)
      and words that contradict each other change nothing. Nor does a supported region other than
      the one found: routers confuse supported regions far more rarely than they let others in.

    So a header opens nothing by its own word, and nothing that is refused for another reason than
    a threshold. In clinical routine BodyPartExamined was wrong in 15 % of pictures (Güld et al.
    2002, doi 10.1117/12.467017): right words are at least .85 / .15 times as likely as wrong ones,
    which is 1.7 log odds, and the default of ``margin`` stays well below that.

    Args:
        call: From :func:`route`.
        header: See :class:`pipeline.domain.XrayImage`.
        how: ``ignore`` for the router's word alone.
        margin: Log odds, 0 or more.

    Returns:
        The call with the veto or the lowered threshold, and what the header did.
    """
    if how == "ignore":
        return replace(call, header_effect=HeaderEffect.IGNORED)
    part = body_part(header, call.thresholds)
    if part.elsewhere and not part.regions:
        if not call.fired:
            return replace(call, header_effect=HeaderEffect.AGREED)
        return replace(call, header_effect=HeaderEffect.VETOED, veto=_veto(call, part.said))
    if part.regions & set(call.fired):
        return replace(call, header_effect=HeaderEffect.AGREED)
    radiograph = (header or {}).get("Modality") in PROJECTIONS
    if part.elsewhere or not radiograph or part.regions != part.named or len(part.named) != 1:
        return call
    (region,) = part.named
    eased = replace(
        call, thresholds={**call.thresholds, region: _lowered(call.thresholds[region], margin)}
    )
    return replace(eased, header_effect=HeaderEffect.HELPED) if region in eased.fired else eased


def _veto(call: RegionCall, said: str) -> str:
    found = ", ".join(
        f"{region} with probability {call.probabilities[region]:.3f} (from "
        f"{call.thresholds[region]:.3f})"
        for region in call.fired
    )
    return f"the header says {said}, which is no supported region, and the router found {found}"


def _lowered(probability: float, margin: float) -> float:
    """The probability whose log odds are ``margin`` less."""
    return probability / (probability + (1.0 - probability) * math.exp(margin))


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
    far: bool = False,
    types: Mapping[str, float] | None = None,
) -> FractureCall:
    """Apply an operating point to what a specialist says.

    Args:
        region: The specialist.
        target: What its labels meant: ``fracture`` or ``abnormality``.
        probability: Calibrated, in [0, 1].
        point: The rule.
        heatmap: Where it is seen.
        far: Whether ``point`` is the one for pictures that are far from the training pictures.
        types: Probability of each type of fracture, given that there is one; kept where the
            picture is not negative.

    Raises:
        ValueError: A probability is no number in [0, 1].
    """
    if types is None or point.verdict(probability) is Verdict.NEGATIVE:
        types = {}
    return FractureCall(region, target, probability, point, heatmap, far, types)


def strongest(seen: Iterable[Seen]) -> tuple[Seen, ...]:
    """The call with the highest probability of each specialist, and its picture.

    That of a picture far from the training pictures has a threshold of its own, and so stands
    beside the highest of the others. Among equals that of the first file by name, so that the
    order of the pictures plays no part.
    """
    best: dict[tuple[str, bool], Seen] = {}
    for image, call in seen:
        found = best.get((call.region, call.far))
        if found is None or _before((image, call)) < _before(found):
            best[call.region, call.far] = image, call
    return tuple(best.values())


def _before(seen: Seen) -> tuple[float, str, int]:
    image, call = seen
    return -call.probability, str(image.path or image.name), image.frame or 0


def decide_study(
    best: Iterable[Seen], points: Mapping[str, OperatingPoint]
) -> tuple[StudyCall, ...]:
    """What each specialist says of a study: its highest probability, and the point that decides.

    Args:
        best: From :func:`strongest`, over the pictures of the study that were sent to each.
        points: For whole studies, by specialist; where there is none, the point that decided on
            the pictures decides on the study too. A picture that is far from the training
            pictures makes no study positive below the threshold that holds for it.
    """
    calls: dict[str, list[StudyCall]] = {}
    for image, call in best:
        point = points.get(call.region)
        decided = replace(call, operating_point=_of_study(call, point))
        source: Literal["study", "picture"] = "study" if point else "picture"
        calls.setdefault(call.region, []).append(StudyCall(decided, image, source))
    return tuple(filter(None, map(gravest, calls.values())))


def _of_study(call: FractureCall, point: OperatingPoint | None) -> OperatingPoint:
    own = call.operating_point
    if point is None:
        return own
    return replace(point, threshold=max(point.threshold, own.threshold)) if call.far else point
