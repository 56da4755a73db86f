"""Figures of the fracture stages, computed from the table of predictions. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.bundle import Estimate
from pipeline.domain import ANY_REGION, REGIONS

from ..statistics.bootstrap import Flags, Numbers, aurc, drawn_weights, interval, risk_draws
from ..statistics.metrics import BOOTSTRAPS, Cases, binary_figures, share
from ..statistics.study_thresholds import StudyBy
from .baselines import look_up, majority
from .truth import columns, fired, logit, specialists

Figures = dict[str, Any]
"""Nested by name; the leaves are counts, texts and :class:`pipeline.bundle.Estimate`."""

POOLED = "pooled"
IN_VIEW, SINGLE, ROUTED = "in view", "single region", "routed"
SETS = {
    IN_VIEW: "the region is certainly in view",
    SINGLE: "the region is the only supported one in view",
    ROUTED: "the router sent the picture to this specialist, correctly or not",
}
"""Sets of pictures on which a specialist is measured; :func:`members` selects their rows."""

FLAGS = ("hardware", "child")
"""Flags that are reported even if no picture has them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the figures.

    Attributes:
        prevalences: Shares of positives for which to compute PPV and NPV.
        seed: Seed of the bootstrap.
        no_twins: Why the look-up was impossible; empty otherwise.
        no_region_stage: Why nothing was routed; empty with a region stage.
        no_gate: Why no density gate was active; empty with a gate.
        study_by: The column that identifies the study of a picture.
    """

    prevalences: tuple[float, ...] = ()
    seed: int = 0
    no_twins: str = ""
    no_region_stage: str = ""
    no_gate: str = ""
    study_by: StudyBy = "study"


@dataclass(frozen=True, slots=True)
class CaseSet:
    """N cases with the baseline's answers and the data that the figures need.

    Attributes:
        cases: Labels, scores, calls and groups.
        twins: (N,) label of the look-up: 1, 0 or NaN.
        likeness: (N,) similarity of the twin, or NaN.
        margin: (N,) log odds of the score minus those of the threshold.
        pictures: (N,) row of each case's picture.
    """

    cases: Cases
    twins: Numbers
    likeness: Numbers
    margin: Numbers
    pictures: NDArray[np.intp]


def compare(selection: CaseSet, settings: Settings) -> Figures:
    """All figures of the network and of both baselines on the same cases.

    Returns:
        ``pairs`` of a picture and a region (the cases); ``positives`` among them; ``pictures``
        and ``positive_pictures``, each counted once; ``groups``, ``looked_up`` (cases with a
        twin), and under ``network``, ``majority`` and ``look_up`` each figure's estimate.
    """
    cases = selection.cases
    answers_by = {
        "network": cases,
        "majority": majority(cases),
        "look_up": look_up(cases, selection.twins),
    }
    figures: Figures = {
        "pairs": len(cases),
        "positives": int(cases.labels.sum()),
        "pictures": len(np.unique(selection.pictures)),
        "positive_pictures": len(np.unique(selection.pictures[cases.labels])),
        "groups": len(set(cases.groups)),
        "looked_up": len(answers_by["look_up"]),
    }
    for name, answers in answers_by.items():
        figures[name] = binary_figures(answers, settings.prevalences, settings.seed)
    if settings.no_twins:
        undefined = Estimate(value=None, note=settings.no_twins)
        figures["look_up"] = dict.fromkeys(figures["network"], undefined)
    return figures


# -------------------------------------------------------------------------------- fractures


def labelled(table: pd.DataFrame) -> Flags:
    """(N,) rows with a known label and a prediction."""
    judged: Flags = (table["label"].notna() & (table["status"] != "failed")).to_numpy(bool)
    return judged


def specialist_cases(table: pd.DataFrame, region: str, rows: Flags) -> CaseSet:
    """Predictions of a region's specialist for the labelled rows of a selection."""
    scores = table[f"fracture_{region}"].to_numpy(np.float64)
    chosen = rows & labelled(table) & ~np.isnan(scores)
    threshold = table[f"threshold_{region}"].to_numpy(np.float64)
    margin = logit(scores) - logit(threshold)
    return _case_set(table, scores, scores >= threshold, margin, chosen)


def _case_set(
    table: pd.DataFrame, scores: Numbers, calls: Flags, margin: Numbers, rows: Flags
) -> CaseSet:
    twins, likeness = (
        table[name].to_numpy(np.float64)[rows] for name in ("twin_label", "labelled_twin_likeness")
    )
    return CaseSet(
        _cases(table, scores, calls)[rows], twins, likeness, margin[rows], np.flatnonzero(rows)
    )


def _cases(table: pd.DataFrame, scores: Numbers, calls: Flags) -> Cases:
    """All rows as cases, including those without a label."""
    labels = (table["label"] == 1).to_numpy(bool)
    return Cases(labels, scores, calls, table["group"].to_numpy(str))


def cases_in_view(table: pd.DataFrame, region: str, bound: str = "threshold") -> Cases:
    """The cases of :func:`case_set` with the region in view, called at a chosen threshold.

    Args:
        table: Predictions; truth and twins are not needed.
        region: A region, :data:`POOLED` (one case per picture and region), or ``all``.
        bound: Prefix of the threshold columns.
    """
    parts = []
    for name in REGIONS if region == POOLED else (region,):
        scores = table[f"fracture_{name}"].to_numpy(np.float64)
        calls = scores >= table[f"{bound}_{name}"].to_numpy(np.float64)
        rows = members(table, name, IN_VIEW) & labelled(table) & ~np.isnan(scores)
        parts.append(_cases(table, scores, calls)[rows])
    return _joined(parts)


def _joined(parts: Sequence[Cases]) -> Cases:
    fields = ("labels", "scores", "calls", "groups")
    return Cases(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def members(table: pd.DataFrame, region: str, name: str) -> Flags:
    """(N,) the rows of one of :data:`SETS`.

    For the specialist for all regions every picture is in view; routed are those it judged.
    """
    if region == ANY_REGION:
        if name == ROUTED:
            return (table[f"verdict_{ANY_REGION}"] != "").to_numpy(bool)
        return (table["regions"].isin(REGIONS) | (name == IN_VIEW)).to_numpy(bool)
    column = REGIONS.index(region)
    if name == ROUTED:
        return fired(table)[:, column]
    if name == SINGLE:
        return (table["regions"] == region).to_numpy(bool)
    in_view: Flags = columns(table, "view")[:, column] == 1
    return in_view


def case_set(table: pd.DataFrame, region: str, name: str) -> CaseSet:
    """Cases of one of :data:`SETS` for a region; pooled: one case per picture and region."""
    if region != POOLED:
        return specialist_cases(table, region, members(table, region, name))
    parts = [specialist_cases(table, each, members(table, each, name)) for each in REGIONS]
    fields = ("twins", "likeness", "margin", "pictures")
    return CaseSet(
        _joined([part.cases for part in parts]),
        *(np.concatenate([getattr(part, field) for part in parts]) for field in fields),
    )


def fracture_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """:func:`compare` by :func:`measured` region, then by set of pictures."""
    return {
        region: {name: compare(case_set(table, region, name), settings) for name in SETS}
        for region in measured(table)
    }


def measured(table: pd.DataFrame) -> tuple[str, ...]:
    """The regions, ``pooled``, and ``all`` if there is a specialist for all regions."""
    return (*REGIONS, POOLED, *(name for name in specialists(table) if name == ANY_REGION))


def cross_region_figures(table: pd.DataFrame, settings: Settings) -> Figures | None:
    """:func:`compare` of each specialist on pictures of each single region, and of none.

    It measures the cost of wrong routing. None without a region stage, which routes nothing.
    """
    if settings.no_region_stage:
        return None
    return {
        specialist: {
            truth: compare(
                specialist_cases(table, specialist, (table["regions"] == truth).to_numpy(bool)),
                settings,
            )
            for truth in (*REGIONS, "none")
        }
        for specialist in specialists(table)
    }


# -------------------------------------------------------------------------------- subgroups


def cases_by_picture(table: pd.DataFrame, rows: Flags) -> CaseSet:
    """One case per picture: highest probability and any call of the regions' specialists."""
    scores = table["in_view_probability"].to_numpy(np.float64)
    calls = table["in_view_call"].to_numpy(np.float64) == 1
    margin = table["in_view_margin"].to_numpy(np.float64)
    return _case_set(table, scores, calls, margin, rows & labelled(table) & ~np.isnan(scores))


def subgroups(table: pd.DataFrame) -> Iterator[tuple[str, str, Flags]]:
    """(kind, name, rows) of every subgroup; no rows for a flag that no picture has."""
    flags = [set(filter(None, text.split(";"))) for text in table["flags"]]
    for flag in (*FLAGS, *sorted(set().union(*flags) - set(FLAGS))):
        flagged = np.array([flag in row for row in flags], bool)
        yield flag, "with", flagged
        yield flag, "without", ~flagged if flagged.any() else flagged
    area = (table["width_px"] * table["height_px"]).to_numpy(np.float64) / 1e6
    inside = np.isfinite(area) & np.isfinite(table["in_view_probability"].to_numpy(np.float64))
    if inside.any():
        low, high = np.percentile(area[inside], [100 / 3, 200 / 3])
        with np.errstate(invalid="ignore"):
            yield "size", f"up to {low:.2f} megapixels", area <= low
            yield "size", f"{low:.2f} to {high:.2f} megapixels", (area > low) & (area <= high)
            yield "size", f"over {high:.2f} megapixels", area > high
    for origin in sorted(set(table["origin"])):
        yield "origin", origin, (table["origin"] == origin).to_numpy(bool)


def subgroup_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """:func:`compare` by kind and name of subgroup, over the pictures with a region in view (or
    over all pictures without a region stage).

    A flag that no picture has gets no figures: its absence may mean that it was not recorded. The
    size limits are the terciles of the pictures with a region in view.
    """
    figures: Figures = {}
    for kind, name, rows in subgroups(table):
        selection = cases_by_picture(table, rows)
        if len(selection.cases) or kind in FLAGS:
            figures.setdefault(kind, {})[name] = compare(selection, settings)
    return figures


# ------------------------------------------------------------------------ risk and coverage


def risk_cases(table: pd.DataFrame, region: str) -> CaseSet:
    """Cases of the pictures with a region in view; pooled: one case per picture with any region.

    The confidence of a decision is the absolute ``margin``: the distance of its probability from
    the threshold in log odds.
    """
    if region == POOLED:
        return cases_by_picture(table, np.ones(len(table), bool))
    return case_set(table, region, IN_VIEW)


def risk_curve(selection: CaseSet) -> tuple[Numbers, Numbers]:
    """(T,) coverage and (T,) risk, as in :func:`~stages.statistics.bootstrap.risk_draws`."""
    if not len(selection.cases):
        return np.zeros(0), np.zeros(0)
    errors = selection.cases.calls != selection.cases.labels
    coverage, risk = risk_draws(errors, np.abs(selection.margin), np.ones((1, len(errors))))
    return coverage[0], risk[0]


def risk_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """By region and pooled: error rate and area under the risk–coverage curve (AURC).

    The majority's AURC is its error rate, because all of its answers have the same confidence.
    The confidence of the look-up is the similarity of the twin.
    """
    figures: Figures = {}
    for region in measured(table):
        selection = risk_cases(table, region)
        cases = selection.cases
        similarity = selection.likeness[~np.isnan(selection.twins)]
        figures[region] = {
            "pictures": len(cases),
            "error_rate": share(cases.calls != cases.labels, cases.groups.tolist()),
            "network": _aurc(cases, np.abs(selection.margin), settings.seed),
            "majority": _aurc(majority(cases), np.zeros(len(cases)), settings.seed),
            "look_up": Estimate(value=None, note=settings.no_twins)
            if settings.no_twins
            else _aurc(look_up(cases, selection.twins), similarity, settings.seed),
        }
    return figures


def _aurc(cases: Cases, confidence: Numbers, seed: int) -> Estimate:
    if len(cases) == 0:
        return Estimate(value=None, note="no cases")
    errors = cases.calls != cases.labels
    value = aurc(*risk_draws(errors, confidence, np.ones((1, len(cases)))))
    weights = drawn_weights(cases.groups.tolist(), BOOTSTRAPS, seed)
    drawn = [aurc(*risk_draws(errors, confidence, block)) for block in weights]
    low, high = interval(np.concatenate(drawn)) or (None, None)
    return Estimate(value=float(value[0]), low=low, high=high)


def plain_figures(figures: Any) -> Any:
    """The figures with each estimate as a mapping, for JSON."""
    if isinstance(figures, Estimate):
        return figures.model_dump()
    if isinstance(figures, Mapping):
        return {name: plain_figures(part) for name, part in figures.items()}
    if isinstance(figures, Sequence) and not isinstance(figures, str):
        return [plain_figures(part) for part in figures]
    return figures
