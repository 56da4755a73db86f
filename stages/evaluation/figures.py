"""The figures of the fracture stages, from the table of predictions alone. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.bundle import Estimate
from pipeline.domain import ANY_REGION, REGIONS, Verdict

from ..metrics import BOOTSTRAPS, Cases, binary_figures, bootstrap, share
from ..resample import Flags, Numbers, aurc, drawn_weights, interval, risk_draws
from ..studies import StudyBy
from .baselines import look_up, majority
from .truth import (
    POINTING,
    columns,
    fired,
    logit,
    marked,
    pointing,
    points_at,
    specialists,
)

Figures = dict[str, Any]
"""Nested by name; the leaves are counts, texts and :class:`pipeline.bundle.Estimate`."""

POOLED = "pooled"
CALLED = "true positives"
IN_VIEW, SINGLE, ROUTED = "in view", "single region", "routed"
SETS = {
    IN_VIEW: "the region is certainly in view",
    SINGLE: "it is the only supported region in view",
    ROUTED: "the router sent the picture there, rightly or not",
}
"""Which pictures a specialist is measured on; see :func:`members` for that of all regions."""

FLAGS = ("hardware", "child")
"""Flags that are reported even where no picture carries them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the figures depend on beside the predictions.

    Attributes:
        prevalences: Shares of positives for which PPV and NPV are wanted.
        seed: Of the bootstrap.
        no_twins: Why nothing could be looked up; empty when it could.
        no_region_stage: Why nothing was routed; empty when there was a region stage.
        no_gate: Why no density gate was in force; empty when one was.
        study_by: The column that tells which pictures are one study.
    """

    prevalences: tuple[float, ...] = ()
    seed: int = 0
    no_twins: str = ""
    no_region_stage: str = ""
    no_gate: str = ""
    study_by: StudyBy = "study"


@dataclass(frozen=True, slots=True)
class Question:
    """N cases, and what is known beside them.

    Attributes:
        cases: What is true and what was said.
        twins: (N,) what the look-up says: 1, 0 or NaN.
        likeness: (N,) how alike the twin is, or NaN.
        margin: (N,) log odds of the answer above those of the threshold.
        pictures: (N,) row of the picture that each case is of.
    """

    cases: Cases
    twins: Numbers
    likeness: Numbers
    margin: Numbers
    pictures: NDArray[np.intp]


def compare(question: Question, settings: Settings) -> Figures:
    """All figures of the network and of both baselines on the same cases.

    Returns:
        ``pairs`` of a picture and a region, which are the cases; ``positives`` among them;
        ``pictures`` and ``positive_pictures`` that they are of, each counted once; ``groups``,
        ``looked_up`` (cases with a twin), and under ``network``, ``majority`` and ``look_up`` each
        figure's estimate.
    """
    cases = question.cases
    answered = {
        "network": cases,
        "majority": majority(cases),
        "look_up": look_up(cases, question.twins),
    }
    figures: Figures = {
        "pairs": len(cases),
        "positives": int(cases.labels.sum()),
        "pictures": len(np.unique(question.pictures)),
        "positive_pictures": len(np.unique(question.pictures[cases.labels])),
        "groups": len(set(cases.groups)),
        "looked_up": len(answered["look_up"]),
    }
    for name, answers in answered.items():
        figures[name] = binary_figures(answers, settings.prevalences, settings.seed)
    if settings.no_twins:
        nothing = Estimate(value=None, note=settings.no_twins)
        figures["look_up"] = dict.fromkeys(figures["network"], nothing)
    return figures


# -------------------------------------------------------------------------------- fractures


def labelled(table: pd.DataFrame) -> Flags:
    """(N,) rows whose label is known and that the networks could judge."""
    judged: Flags = (table["label"].notna() & (table["status"] != "failed")).to_numpy(bool)
    return judged


def question(table: pd.DataFrame, region: str, rows: Flags) -> Question:
    """What the specialist of a region says of the labelled ones among some rows."""
    scores = table[f"fracture_{region}"].to_numpy(np.float64)
    chosen = rows & labelled(table) & ~np.isnan(scores)
    threshold = table[f"threshold_{region}"].to_numpy(np.float64)
    margin = logit(scores) - logit(threshold)
    return _question(table, scores, scores >= threshold, margin, chosen)


def _question(
    table: pd.DataFrame, scores: Numbers, calls: Flags, margin: Numbers, rows: Flags
) -> Question:
    twins, likeness = (
        table[name].to_numpy(np.float64)[rows] for name in ("twin_label", "labelled_twin_likeness")
    )
    return Question(
        _cases(table, scores, calls)[rows], twins, likeness, margin[rows], np.flatnonzero(rows)
    )


def _cases(table: pd.DataFrame, scores: Numbers, calls: Flags) -> Cases:
    """All rows as cases, those without a label among them."""
    labels = (table["label"] == 1).to_numpy(bool)
    return Cases(labels, scores, calls, table["group"].to_numpy(str))


def cases_in_view(table: pd.DataFrame, region: str, bound: str = "threshold") -> Cases:
    """The cases of :func:`ask` for pictures with a region in view, called from another bound on.

    Args:
        table: Predictions; neither truth nor twins are needed.
        region: A region, :data:`POOLED` (one case a picture and region), or ``all``.
        bound: Beginning of the columns from whose values on a case is called.
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

    A specialist for all regions has in view whatever there is; it is sent what it looked at.
    """
    if region == ANY_REGION:
        if name == ROUTED:
            return (table[f"verdict_{ANY_REGION}"] != "").to_numpy(bool)
        return (table["regions"].isin(REGIONS) | (name == IN_VIEW)).to_numpy(bool)
    place = REGIONS.index(region)
    if name == ROUTED:
        return fired(table)[:, place]
    if name == SINGLE:
        return (table["regions"] == region).to_numpy(bool)
    seen: Flags = columns(table, "view")[:, place] == 1
    return seen


def ask(table: pd.DataFrame, region: str, name: str) -> Question:
    """The question to a specialist, or to those of the regions (one case a picture and region)."""
    if region != POOLED:
        return question(table, region, members(table, region, name))
    parts = [question(table, each, members(table, each, name)) for each in REGIONS]
    beside = ("twins", "likeness", "margin", "pictures")
    return Question(
        _joined([part.cases for part in parts]),
        *(np.concatenate([getattr(part, field) for part in parts]) for field in beside),
    )


def fracture_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """By region (pooled, and of a specialist for all), then by set of pictures: :func:`compare`."""
    return {
        region: {name: compare(ask(table, region, name), settings) for name in SETS}
        for region in measured(table)
    }


def measured(table: pd.DataFrame) -> tuple[str, ...]:
    """The regions, all of their cases pooled, and ``all`` where there is such a specialist."""
    return (*REGIONS, POOLED, *(name for name in specialists(table) if name == ANY_REGION))


def cross_region_figures(table: pd.DataFrame, settings: Settings) -> Figures | None:
    """Each specialist on the pictures of each true single region, and of none: what a misroute
    costs. None without a region stage: nothing goes anywhere else.
    """
    if settings.no_region_stage:
        return None
    return {
        specialist: {
            truth: compare(
                question(table, specialist, (table["regions"] == truth).to_numpy(bool)), settings
            )
            for truth in (*REGIONS, "none")
        }
        for specialist in specialists(table)
    }


# -------------------------------------------------------------------------------- subgroups


def by_picture(table: pd.DataFrame, rows: Flags) -> Question:
    """One case a picture: the highest probability, and any call, of the specialists it is for."""
    scores = table["in_view_probability"].to_numpy(np.float64)
    calls = table["in_view_call"].to_numpy(np.float64) == 1
    margin = table["in_view_margin"].to_numpy(np.float64)
    return _question(table, scores, calls, margin, rows & labelled(table) & ~np.isnan(scores))


def subgroups(table: pd.DataFrame) -> Iterator[tuple[str, str, Flags]]:
    """(kind, name, rows) of every subgroup; no rows for a flag that nothing carries."""
    flags = [set(filter(None, text.split(";"))) for text in table["flags"]]
    for flag in (*FLAGS, *sorted(set().union(*flags) - set(FLAGS))):
        carries = np.array([flag in row for row in flags], bool)
        yield flag, "with", carries
        yield flag, "without", ~carries if carries.any() else carries
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
    """By kind and name of subgroup: :func:`compare` over the pictures with a region in view, or
    over all without a region stage.

    A flag that no picture carries has no figures: whether its absence means anything is not
    known. The edges of the sizes are the terciles of the pictures with a region in view.
    """
    figures: Figures = {}
    for kind, name, rows in subgroups(table):
        asked = by_picture(table, rows)
        if len(asked.cases) or kind in FLAGS:
            figures.setdefault(kind, {})[name] = compare(asked, settings)
    return figures


# ------------------------------------------------------------------------ risk and coverage


def risk_question(table: pd.DataFrame, region: str) -> Question:
    """The pictures with a region in view, or one case for each picture with any.

    How sure a decision is: the distance of its probability from the threshold in log odds, the
    size of ``margin``.
    """
    if region == POOLED:
        return by_picture(table, np.ones(len(table), bool))
    return ask(table, region, IN_VIEW)


def risk_curve(asked: Question) -> tuple[Numbers, Numbers]:
    """(T,) coverage and (T,) risk of :func:`stages.resample.risk_draws` on the cases as such."""
    if not len(asked.cases):
        return np.zeros(0), np.zeros(0)
    errors = asked.cases.calls != asked.cases.labels
    coverage, risk = risk_draws(errors, np.abs(asked.margin), np.ones((1, len(errors))))
    return coverage[0], risk[0]


def risk_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """By region and pooled: error rate and area under the risk–coverage curve (AURC).

    The majority's AURC is its error rate: all of its answers are equally sure. The look-up is as
    sure as the twin is alike.
    """
    figures: Figures = {}
    for region in measured(table):
        asked = risk_question(table, region)
        cases = asked.cases
        alike = asked.likeness[~np.isnan(asked.twins)]
        figures[region] = {
            "pictures": len(cases),
            "error_rate": share(cases.calls != cases.labels, cases.groups.tolist()),
            "network": _aurc(cases, np.abs(asked.margin), settings.seed),
            "majority": _aurc(majority(cases), np.zeros(len(cases)), settings.seed),
            "look_up": Estimate(value=None, note=settings.no_twins)
            if settings.no_twins
            else _aurc(look_up(cases, asked.twins), alike, settings.seed),
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


# --------------------------------------------------------------------------------- pointing


def pointing_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """How often the map points at a marked fracture, by region in view and for each picture.

    Returns:
        By region, pooled, and for those of the pooled pictures whose verdict is positive (the
        maps that a reader is shown first): ``pictures``, and under ``centre`` (the centre of the
        highest cell lies in a box) and ``cell`` (any part of it does) the estimates ``network``,
        ``chance`` (a cell anywhere in the picture), ``margin`` (their difference on the same
        pictures) and ``middle`` (a cell that always is in the middle of the picture). A peak in
        the padding is a miss where its cell touches no box.
    """
    figures: Figures = {}
    for region in specialists(table):
        mapped = table[f"peak_x_{region}"].notna().to_numpy(bool)
        part = table[marked(table) & mapped & members(table, region, IN_VIEW)]
        middle = part.assign(**{f"peak_{axis}_{region}": 0.5 for axis in "xy"})
        figures[region] = _pointing(
            part, points_at(part, region), points_at(middle, region), settings
        )
    pooled = table[table["pointing_hit"].notna()]
    for name, part in ((POOLED, pooled), (CALLED, pooled[_called(pooled)])):
        middle = part.assign(
            **{f"peak_{axis}_{region}": 0.5 for axis in "xy" for region in specialists(table)}
        )
        found, blind = (
            {name: rows[f"pointing_{name}"].to_numpy(np.float64) for name in POINTING}
            for rows in (part, part.assign(**pointing(middle)))
        )
        figures[name] = _pointing(part, found, blind, settings)
    return figures


def _called(table: pd.DataFrame) -> Flags:
    """Pictures that the specialist whose map is looked at was asked about and calls positive."""
    called = np.zeros(len(table), np.bool_)
    for region in specialists(table):
        mine = (table["pointing_region"] == region).to_numpy(np.bool_)
        called |= mine & (table[f"verdict_{region}"] == Verdict.POSITIVE.value).to_numpy(np.bool_)
    return called


def _pointing(
    table: pd.DataFrame, found: Mapping[str, Numbers], blind: Mapping[str, Numbers],
    settings: Settings,
) -> Figures:  # fmt: skip
    groups = table["group"].tolist()

    def estimates(kind: str) -> Figures:
        hits, chances = found[f"{kind}hit"] == 1, found[f"{kind}chance"]
        chance = margin = Estimate(value=None, note="no cases")
        if groups:
            chance = bootstrap(lambda rows: float(chances[rows].mean()), groups, settings.seed)
            more = hits - chances
            margin = bootstrap(lambda rows: float(more[rows].mean()), groups, settings.seed)
        return {
            "network": share(hits, groups),
            "chance": chance,
            "margin": margin,
            "middle": share(blind[f"{kind}hit"] == 1, groups),
        }

    return {"pictures": len(table), "centre": estimates(""), "cell": estimates("cell_")}


def plain_figures(figures: Any) -> Any:
    """The same with each estimate as a mapping, for JSON."""
    if isinstance(figures, Estimate):
        return figures.model_dump()
    if isinstance(figures, Mapping):
        return {name: plain_figures(part) for name, part in figures.items()}
    if isinstance(figures, Sequence) and not isinstance(figures, str):
        return [plain_figures(part) for part in figures]
    return figures
