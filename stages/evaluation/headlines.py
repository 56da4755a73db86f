"""Headline figures, formatted for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.bundle import Estimate
from pipeline.domain import ANY_REGION

from .figures import IN_VIEW, POOLED, Figures
from .pointing import CALLED
from .studies import AT_STUDY, NO_POINT, RATES


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure with its baselines.

    Attributes:
        name: Display name.
        of: Number of pictures (pooled: pairs of a picture and a region), with the number of
            positives in brackets.
        network, majority, look_up: The value of each; for maps the baselines are a random cell
            and the cell in the middle.
    """

    name: str
    of: str
    network: Estimate
    majority: Estimate
    look_up: Estimate


FOOTNOTE = (
    "* end to end: correct or correctly refused, among all inputs; region: the most probable "
    "region, on single-region pictures; map: its highest cell touches a marked fracture "
    "(baselines: a random cell, and the cell in the middle of the picture); if called: for "
    "true positives; pooled: pairs of a picture and a region in view"
)


def headlines(figures: Figures) -> Iterator[Headline]:
    """Yield the figures end to end, of routing, of each specialist in view, and of the maps."""
    ends, region = figures["end_to_end"]["all"], figures["region"]
    yield _rated("end to end*", ends["accuracy"])
    if region is not None:
        yield _rated("region*", region["accuracy"])
        yield _rated("unsupported refused", region["unsupported_refused"])
        yield _rated("supported refused", region["supported_refused"])
    for name, sets in figures["fracture"].items():
        part = sets[IN_VIEW]
        if not part["pictures"] and ANY_REGION in figures["fracture"]:
            continue  # the specialist for all regions has a separate line
        of = f"{part['pairs']} ({part['positives']})"
        short = ("auc", "sensitivity", "specificity", "accuracy")
        overall, mark = name in (POOLED, ANY_REGION), "*" if name == POOLED else ""
        for figure in (*short, "kappa", "brier", "ece") if overall else short:
            yield Headline(
                f"{name}{mark}: {figure_name(figure)}", of, part["network"][figure],
                part["majority"][figure], part["look_up"][figure],
            )  # fmt: skip
    for name, title in ((POOLED, "map at fracture*"), (CALLED, "map, if called*")):
        pointing = figures["pointing"][name]
        yield Headline(
            title, str(pointing["pictures"]),
            pointing["cell"]["network"], pointing["cell"]["chance"],
            pointing["cell"]["middle"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StudyLine:
    """One figure of studies, with the same figure of their pictures.

    Attributes:
        name: Display name.
        of: Number of studies, with the number of positives in brackets.
        pictures: The figure of pictures; None for a difference.
        studies: The figure of studies, or the difference.
    """

    name: str
    of: str
    pictures: Estimate | None
    studies: Estimate


OWN = "own"
"""Suffix of the lines at the threshold that was fitted to studies."""


def study_lines(figures: Figures) -> Iterator[StudyLine]:
    """AUC, then sensitivity, specificity and its cost at each threshold; nothing without studies.

    For pictures with the region in view; thresholds that no bundle has are omitted.
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
    """Explanation of the lines, or the reason why there are none."""
    if facts["no_studies"]:
        hint = "; --study-by group uses groups instead" if facts["study_by"] == "study" else ""
        return f"Studies: not measured, {facts['no_studies']}{hint}."
    groups = "groups used as studies; " if facts["study_by"] == "group" else ""
    return (
        f"Studies: {groups}the highest probability of a study's pictures, positive if any "
        "picture is; pictures and studies at the threshold for pictures, or at the one fitted to "
        "studies (own); cost: specificity of pictures minus that of studies"
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
    title = _NAMES.get(short, short.replace("_", " "))
    return f"{title} at prevalence {prevalence}" if prevalence else title


def words(estimate: Estimate) -> str:
    """``0.912 [0.850, 0.961]``, or the reason why there is no value."""
    if estimate.value is None:
        return f"undefined: {estimate.note}"
    return f"{estimate.value:.3f} {bounds(estimate)}"


def bounds(estimate: Estimate) -> str:
    """``[0.850, 0.961]``, or ``[no interval]``; the estimate's note gives the reason."""
    if estimate.low is None or estimate.high is None:
        return "[no interval]"
    return f"[{estimate.low:.3f}, {estimate.high:.3f}]"


def number(estimate: Estimate) -> str:
    """``0.912``, or a dash."""
    return "–" if estimate.value is None else f"{estimate.value:.3f}"
