"""The few figures that are read first, in words; the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.bundle import Estimate
from pipeline.domain import ANY_REGION

from .figures import CALLED, IN_VIEW, POOLED, Figures
from .studies import AT_STUDY, NO_POINT, RATES


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure beside what it must beat.

    Attributes:
        name: In words.
        of: On how many pictures (of pooled regions: pairs of a picture and a region), and in
            brackets how many of them positive.
        network, majority, look_up: Its value by whom; for the map the baselines are a cell
            anywhere and one in the middle.
    """

    name: str
    of: str
    network: Estimate
    majority: Estimate
    look_up: Estimate


FOOTNOTE = (
    "* end to end: right or rightly refused, among all inputs; region: the most probable one, on "
    "single-region pictures; map: its highest cell touches a marked fracture, beside a cell "
    "anywhere (first baseline) and one in the middle of the picture (second); if called: of "
    "true positives; pooled: pairs of a picture and a region in view in it"
)


def headlines(figures: Figures) -> Iterator[Headline]:
    """End to end, routing, each specialist on pictures with its region in view, the maps."""
    ends, region = figures["end_to_end"]["all"], figures["region"]
    yield _rated("end to end*", ends["accuracy"])
    if region is not None:
        yield _rated("region*", region["accuracy"])
        yield _rated("unsupported refused", region["unsupported_refused"])
        yield _rated("supported refused", region["supported_refused"])
    for name, sets in figures["fracture"].items():
        part = sets[IN_VIEW]
        if not part["pictures"] and ANY_REGION in figures["fracture"]:
            continue  # what one specialist for all regions is worth stands in a line of its own
        of = f"{part['pairs']} ({part['positives']})"
        short = ("auc", "sensitivity", "specificity", "accuracy")
        whole, mark = name in (POOLED, ANY_REGION), "*" if name == POOLED else ""
        for figure in (*short, "kappa", "brier", "ece") if whole else short:
            yield Headline(
                f"{name}{mark}: {figure_name(figure)}", of, part["network"][figure],
                part["majority"][figure], part["look_up"][figure],
            )  # fmt: skip
    for name, words in ((POOLED, "map at fracture*"), (CALLED, "map, if called*")):
        pointing = figures["pointing"][name]
        yield Headline(
            words, str(pointing["pictures"]),
            pointing["cell"]["network"], pointing["cell"]["chance"],
            pointing["cell"]["middle"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StudyLine:
    """One figure of studies beside that of their pictures.

    Attributes:
        name: In words.
        of: On how many studies, and in brackets how many of them positive.
        pictures: None for a difference of the two.
        studies: The figure, or that difference.
    """

    name: str
    of: str
    pictures: Estimate | None
    studies: Estimate


OWN = "own"
"""Ends the lines at the threshold that was fitted to studies."""


def study_lines(figures: Figures) -> Iterator[StudyLine]:
    """AUC, then sensitivity, specificity and its cost at each threshold; nothing without studies.

    Of pictures with the region in view; thresholds that no bundle has are left out.
    """
    for region, sets in (figures["studies"] or {}).items():
        part = sets[IN_VIEW]
        if not part["studies"]:
            continue
        of = f"{part['studies']} ({part['positives']})"
        yield StudyLine(f"{region}: AUC", of, part["auc"]["pictures"], part["auc"]["studies"])
        for threshold, at in part["at"].items():
            cost = at["specificity_cost"]
            if threshold == AT_STUDY and cost.note == NO_POINT:
                continue
            own = f", {OWN}" if threshold == AT_STUDY else ""
            for name in RATES:
                yield StudyLine(
                    f"{region}: {name}{own}", of, at["pictures"][name], at["studies"][name]
                )
            yield StudyLine(f"{region}: specificity cost{own}", of, None, cost)


def study_note(facts: Mapping[str, Any]) -> str:
    """What the lines mean, or why there are none, as a sentence."""
    if facts["no_studies"]:
        stand_in = "; --study-by group lets groups stand in" if facts["study_by"] == "study" else ""
        return f"Studies: not measured, {facts['no_studies']}{stand_in}."
    groups = "groups in place of studies; " if facts["study_by"] == "group" else ""
    return (
        f"Studies: {groups}the highest probability of a study's pictures, positive where any of "
        "them is; both at the threshold for pictures, or at the one fitted to studies (own); cost: "
        "specificity of pictures less that of studies"
    )


def _rated(name: str, part: Figures) -> Headline:
    return Headline(
        name, str(part["pictures"]), part["network"], part["majority"], part["look_up"]
    )  # fmt: skip


_NAMES = {
    "auc": "AUC", "ppv": "PPV", "npv": "NPV", "kappa": "κ", "brier": "Brier score", "ece": "ECE",
}  # fmt: skip


def figure_name(name: str) -> str:
    """``ppv_at_0.1`` → ``PPV at prevalence 0.1``."""
    short, _, prevalence = name.partition("_at_")
    words = _NAMES.get(short, short.replace("_", " "))
    return f"{words} at prevalence {prevalence}" if prevalence else words


def words(estimate: Estimate) -> str:
    """``0.912 [0.850, 0.961]``, or why there is no value."""
    if estimate.value is None:
        return f"undefined: {estimate.note}"
    return f"{estimate.value:.3f} {bounds(estimate)}"


def bounds(estimate: Estimate) -> str:
    """``[0.850, 0.961]``; the note of an estimate without says why."""
    if estimate.low is None or estimate.high is None:
        return "[no interval]"
    return f"[{estimate.low:.3f}, {estimate.high:.3f}]"


def number(estimate: Estimate) -> str:
    """``0.912``, or a dash."""
    return "–" if estimate.value is None else f"{estimate.value:.3f}"
