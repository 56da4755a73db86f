"""Decision rules, from probabilities to verdicts, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from .domain import ANY_REGION, Flag, Heatmap, ImageRef
from .flags import BLANK
from .io.body_parts import body_part
from .io.dicom_terms import PROJECTIONS
from .outcome import (
    FractureCall,
    HeaderEffect,
    HeaderUse,
    OperatingPoint,
    RegionCall,
    StudyCall,
    Verdict,
    most_severe,
)

Seen = tuple[ImageRef, FractureCall]
"""A picture and the call of a specialist."""


def route(
    probabilities: Mapping[str, float],
    thresholds: Mapping[str, float],
    density: float | None = None,
    density_threshold: float | None = None,
    density_far: float | None = None,
) -> RegionCall:
    """Decide which regions a picture shows: none, one or several.

    Args:
        probabilities: Calibrated, independent probability in [0, 1] of each region.
        thresholds: Probability from which each region is recognised.
        density: Similarity to the nearest training pictures, if the region stage computes it.
        density_threshold: Density below which no region is recognised; None without a gate.
        density_far: Density below which the picture is far from the training pictures.

    Raises:
        ValueError: The regions differ, a probability is not in [0, 1], the density is not a number,
            or it is missing although it has a threshold.
    """
    return RegionCall(
        dict(probabilities), dict(thresholds), density, density_threshold, density_far
    )


def combine(
    call: RegionCall, header: Mapping[str, str] | None, how: HeaderUse, margin: float
) -> RegionCall:
    """Adjust the decision of the router by the DICOM header.

    - *Veto.* If all body parts in the header are outside the regions of the router (CHEST, KNEE,
      a mortise view), no region is recognised, regardless of the router.
    - *Help.* If the header names exactly one supported region (HAND, a scaphoid view) and nothing
      else, and its modality is that of a projection radiograph, the threshold of that region is
      lowered by ``margin`` log odds. Other thresholds do not change.
    - *No effect.* A missing header, unknown terms, neighbours of a region (FOREARM, CLAVICLE) and
      contradictory terms change nothing. Neither does a supported region other than the recognised
      one: routers confuse supported regions far less often than they accept unsupported ones.

    So a header alone never makes a region recognised, and never overrides a refusal for another
    reason than a threshold. In clinical routine BodyPartExamined was wrong in 15 % of pictures
    (Güld et al. 2002, doi 10.1117/12.467017): a correct term is at least .85 / .15 times as likely
    as a wrong one, which is 1.7 log odds; the default of ``margin`` is well below that.

    Args:
        call: Result of :func:`route`.
        header: See :class:`pipeline.domain.XrayImage`.
        how: ``ignore`` to use the router alone.
        margin: Log odds, 0 or more.

    Returns:
        The call with the veto or the lowered threshold, and the effect of the header.
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


def _veto(call: RegionCall, terms: str) -> str:
    recognised = ", ".join(
        f"{region} with probability {call.probabilities[region]:.3f} (from "
        f"{call.thresholds[region]:.3f})"
        for region in call.fired
    )
    return (
        f"the header says {terms}, which is not a supported region, and the router found "
        f"{recognised}"
    )


def _lowered(probability: float, margin: float) -> float:
    """The probability with log odds lower by ``margin``."""
    return probability / (probability + (1.0 - probability) * math.exp(margin))


def specialists_for(call: RegionCall | None, specialists: Collection[str]) -> tuple[str, ...]:
    """The specialists that judge a picture, without duplicates.

    A recognised region goes to its own specialist, else to the one for all regions, if any.

    Args:
        call: The routing decision; None without a region stage, then all specialists judge.
        specialists: Regions with a specialist, possibly including ``all``.
    """
    if call is None:
        return tuple(specialists)
    chosen = (region if region in specialists else ANY_REGION for region in call.fired)
    return tuple(name for name in dict.fromkeys(chosen) if name in specialists)


def exclusion_reason(flags: Iterable[Flag]) -> str | None:
    """Reason why a picture gets no verdict regardless of the networks; None if it can get one.

    Networks return values even for a picture of one grey value, but these are meaningless.

    Args:
        flags: Flags of the picture.
    """
    return next((f"{flag.name}: {flag.reason}" for flag in flags if flag.name == BLANK), None)


def refusal(call: RegionCall | None, specialists: Collection[str]) -> str | None:
    """Reason why no specialist judges a picture; None if one does.

    A picture is refused if no region is recognised, or only regions without a specialist.

    Args:
        call: See :func:`specialists_for`.
        specialists: See :func:`specialists_for`.
    """
    if call is None or specialists_for(call, specialists):
        return None
    if call.reason is not None:
        return call.reason
    return (
        f"recognised as {', '.join(call.fired)}, which has no specialist; specialists are "
        f"available for {', '.join(sorted(specialists)) or 'no region'}"
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
    """Apply an operating point to the probability of a specialist.

    Args:
        region: Region of the specialist.
        target: Meaning of its labels: ``fracture`` or ``abnormality``.
        probability: Calibrated, in [0, 1].
        point: The operating point.
        heatmap: Location of the finding.
        far: Whether ``point`` is the one for pictures far from the training pictures.
        types: Probability of each type of fracture, given that there is one; discarded if the
            verdict is negative.

    Raises:
        ValueError: A probability is not in [0, 1].
    """
    if types is None or point.verdict(probability) is Verdict.NEGATIVE:
        types = {}
    return FractureCall(region, target, probability, point, heatmap, far, types)


def strongest(seen: Iterable[Seen]) -> tuple[Seen, ...]:
    """The call with the highest probability of each specialist, and its picture.

    Pictures far from the training pictures have another threshold, so their highest call is kept
    separately. Ties are decided by file name, so the order of the pictures has no effect.
    """
    best: dict[tuple[str, bool], Seen] = {}
    for image, call in seen:
        current = best.get((call.region, call.far))
        if current is None or _rank((image, call)) < _rank(current):
            best[call.region, call.far] = image, call
    return tuple(best.values())


def _rank(seen: Seen) -> tuple[float, str, int]:
    image, call = seen
    return -call.probability, str(image.path or image.name), image.frame or 0


def decide_study(
    best: Iterable[Seen], points: Mapping[str, OperatingPoint]
) -> tuple[StudyCall, ...]:
    """Verdict of each specialist on a study: its highest probability and the operating point.

    Args:
        best: Result of :func:`strongest` for the pictures of the study.
        points: Operating points for whole studies, by specialist; without one, the point of the
            picture applies to the study too. A picture far from the training pictures never makes
            a study positive below its own threshold.
    """
    calls: dict[str, list[StudyCall]] = {}
    for image, call in best:
        point = points.get(call.region)
        decided = replace(call, operating_point=_of_study(call, point))
        source: Literal["study", "picture"] = "study" if point else "picture"
        calls.setdefault(call.region, []).append(StudyCall(decided, image, source))
    return tuple(filter(None, map(most_severe, calls.values())))


def _of_study(call: FractureCall, point: OperatingPoint | None) -> OperatingPoint:
    own = call.operating_point
    if point is None:
        return own
    return replace(point, threshold=max(point.threshold, own.threshold)) if call.far else point
