"""What the networks are worth when every picture is changed: figures by shift, and their mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bundle import Estimate
from pipeline.config import RunConfig
from pipeline.domain import ANY_REGION, REGIONS, Array, Status, XrayImage
from pipeline.errors import UsageError
from pipeline.progress import Progress
from pipeline.runtime.session import Weights

from ..data.index import NONE, Box, Sample
from ..metrics import Cases, Drawn, drawn_binary_figures, drawn_share
from ..resample import Flags, interval
from .figures import POOLED, Figures, Settings, cases_in_view
from .predictions import predict
from .shifts import HOME, SHIFTS, SUITE_VERSION, shifted
from .truth import columns

FIGURES = {
    "answered": "answered", "region_accuracy": "region arg-max", "let_in": "unsupported let in",
    "auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity",
    "sensitivity_or_uncertain": "sensitivity*", "specificity_or_uncertain": "specificity*",
    "ece": "ECE", **{f"auc_{region}": f"{region}: AUC" for region in REGIONS},
}  # fmt: skip
"""The figures of a shift, in words."""

PANEL, WIDE_PANEL = 3, 6
"""Figures beside each other, where a line holds 80 characters, and on a page."""

MEAN = "mean"

NOTE = (
    "answered: pictures of a single supported region that get a verdict; let in: those without a "
    "supported region that do; AUC to ECE: on every picture with a region in view, refused or not, "
    "one case a picture and region; * of positive or uncertain"
)


@dataclass(frozen=True, slots=True)
class AskedShifts:
    """Which part of the suite is wanted.

    Attributes:
        names: Some of :data:`.shifts.SHIFTS`, in that order.
        limit: Of the pictures; None for all.
    """

    names: tuple[str, ...] = SHIFTS
    limit: int | None = None


def ask_shifts(only: Sequence[str], limit: int | None) -> AskedShifts:
    """The whole suite, or the named ones of its shifts.

    Raises:
        UsageError: The suite has no shift of such a name.
    """
    strange = sorted(set(only) - set(SHIFTS))
    if strange:
        raise UsageError(
            f"--only-shifts: found {', '.join(strange)}, wanted some of {', '.join(SHIFTS)}"
        )
    return AskedShifts(tuple(name for name in SHIFTS if name in only or not only), limit)


def fixed_part(samples: Sequence[Sample], limit: int | None) -> Flags:
    """(N,) which pictures take part: those whose SHA-256 come first, so always the same."""
    order = sorted(range(len(samples)), key=lambda i: (samples[i].sha256, str(samples[i].path)))
    chosen = np.zeros(len(samples), np.bool_)
    chosen[order[:limit]] = True
    return chosen


def predict_shifts(
    samples: Sequence[Sample], home: pd.DataFrame, root: Path, weights: Weights,
    config: RunConfig, asked: AskedShifts, progress: Progress,
) -> pd.DataFrame:  # fmt: skip
    """Ask every network about every picture under every shift.

    Args:
        samples: Rows of the table.
        home: What :func:`.predictions.predict` gave for them.
        root: Folder of the table.
        weights: Opened bundles.
        config: What they were opened with.
        asked: Shifts, and the number of pictures.
        progress: Advanced once a picture and shift.

    Returns:
        The columns of :func:`.predictions.predict` after ``shift``; first the rows of ``home``
        for the pictures that take part, then theirs under each shift, size and fracture boxes
        being those of the changed picture.

    Raises:
        DeviceError: The device gave up.
    """
    rows = fixed_part(samples, asked.limit)
    part = [sample for sample, chosen in zip(samples, rows, strict=True) if chosen]
    tables = {HOME: home[rows]}
    for name in asked.names:

        def change(
            image: XrayImage, boxes: tuple[Box, ...], name: str = name
        ) -> tuple[Array, tuple[Box, ...]]:
            return shifted(name, image.pixels, boxes, str(image.source.sha256))

        tables[name], _ = predict(part, root, weights, config, progress, change)
    known = list(tables[asked.names[-1]].columns)
    named = [table[known].assign(shift=name) for name, table in tables.items()]
    return pd.concat(named, ignore_index=True)[["shift", *known]]


def shift_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """The figures of each shift, and the mean of each figure over the shifts.

    Args:
        table: As :func:`predict_shifts` gives it.
        settings: Seed, and why nothing was routed.

    Returns:
        ``suite_version``, ``pictures``, ``groups``, ``cases`` and ``positives`` (of the fracture
        figures); under ``by_shift`` for each shift, ``none`` first, its :data:`FIGURES`; under
        ``mean`` the mean over the shifts, ``none`` not among them. Groups are drawn alike for all
        shifts, so that the interval of a mean knows that they are of the same pictures.
    """
    names = list(dict.fromkeys(table["shift"]))
    drawn = {name: _drawn(table[table["shift"] == name], settings) for name in names}
    home = table[table["shift"] == HOME]
    pooled = _pooled(home, "threshold")
    return {
        "suite_version": SUITE_VERSION,
        "pictures": len(home),
        "groups": home["group"].nunique(),
        "cases": len(pooled),
        "positives": int(pooled.labels.sum()),
        "by_shift": {
            name: {figure: each.drawn.estimate for figure, each in figures.items()}
            for name, figures in drawn.items()
        },
        MEAN: {
            figure: _mean([drawn[name][figure] for name in names if name != HOME])
            for figure in FIGURES
        },
    }


@dataclass(frozen=True, slots=True)
class _Of:
    """A figure and the groups of its cases: the same ones are drawn alike."""

    drawn: Drawn
    groups: tuple[str, ...]


def _drawn(table: pd.DataFrame, settings: Settings) -> dict[str, _Of]:
    """Every figure of one shift."""
    figures = _routing(table, settings)
    called = _pooled(table, "threshold")
    binary = drawn_binary_figures(called, seed=settings.seed)
    doubted = drawn_binary_figures(_pooled(table, "doubt_below"), seed=settings.seed)
    groups = tuple(called.groups)
    figures |= {
        name: _Of(binary[name], groups) for name in ("auc", "sensitivity", "specificity", "ece")
    }
    figures |= {
        f"{name}_or_uncertain": _Of(doubted[name], groups)
        for name in ("sensitivity", "specificity")
    }
    for region in REGIONS:
        cases = cases_in_view(table, region)
        auc = drawn_binary_figures(cases, seed=settings.seed)["auc"]
        figures[f"auc_{region}"] = _Of(auc, tuple(cases.groups))
    return {name: figures[name] for name in FIGURES}


def _pooled(table: pd.DataFrame, bound: str) -> Cases:
    """One case a picture and region; a picture where a specialist for all stands alone."""
    cases = cases_in_view(table, POOLED, bound)
    if len(cases) == 0 and f"fracture_{ANY_REGION}" in table:
        return cases_in_view(table, ANY_REGION, bound)
    return cases


def _routing(table: pd.DataFrame, settings: Settings) -> dict[str, _Of]:
    """Who gets a verdict, and the most probable region, of the pictures that could be judged."""
    judged = (table["status"] != Status.FAILED.value).to_numpy(bool)
    single = judged & table["regions"].isin(REGIONS).to_numpy(bool)
    none = judged & (table["regions"] == NONE).to_numpy(bool)
    verdict = (table["status"] == Status.OK.value).to_numpy(bool)
    routed = ~np.isnan(columns(table, "p")).all(1)
    best = np.nan_to_num(columns(table, "p"), nan=-1.0).argmax(1)
    right = columns(table, "view")[np.arange(len(table)), best] == 1
    figures = {
        "answered": _share(table, single, verdict),
        "region_accuracy": _share(table, single & routed, right),
        "let_in": _share(table, none, verdict),
    }
    if settings.no_region_stage:
        nothing = Drawn(Estimate(value=None, note=settings.no_region_stage), np.zeros(0))
        figures["region_accuracy"] = _Of(nothing, ())
    return figures


def _share(table: pd.DataFrame, rows: Flags, hits: Flags) -> _Of:
    groups = table["group"].to_numpy(str)[rows].tolist()
    return _Of(drawn_share(hits[rows], groups), tuple(groups))


def _mean(shifts: Sequence[_Of]) -> Estimate:
    """The mean of a figure over shifts of the same pictures."""
    estimates = [each.drawn.estimate for each in shifts]
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    if len(values) < len(estimates):
        return next(estimate for estimate in estimates if estimate.value is None)
    if all(estimate == estimates[0] for estimate in estimates):
        return estimates[0]
    value = float(np.mean(values))
    if any(each.groups != shifts[0].groups for each in shifts):
        return Estimate(value=value, note="no interval: not the same pictures under every shift")
    limits = interval(np.mean([each.drawn.draws for each in shifts], axis=0))
    if limits is None:
        return Estimate(value=value, note="no interval: too few groups")
    if limits[0] == limits[1]:
        return Estimate(value=value, note="no interval: every draw of groups gives the same")
    return Estimate(value=value, low=limits[0], high=limits[1])


Panel = tuple[list[str], list[tuple[str, list[Any]]]]


def panels(chapter: Mapping[str, Any], width: int = PANEL) -> Iterator[Panel]:
    """What :func:`shift_figures` gave, as tables of ``width`` figures each.

    Yields:
        Heads of the columns after the first; and of each row its name and its estimates, home
        first, the mean last.
    """
    by_shift = chapter["by_shift"]
    lines = {f"{HOME} (home)": by_shift[HOME]}
    lines |= {name: figures for name, figures in by_shift.items() if name != HOME}
    lines[f"mean of {len(lines) - 1}"] = chapter[MEAN]
    names = list(FIGURES)
    for start in range(0, len(names), width):
        part = names[start : start + width]
        yield (
            [FIGURES[name] for name in part],
            [(line, [figures[name] for name in part]) for line, figures in lines.items()],
        )


def shift_note(chapter: Mapping[str, Any], pictures: int) -> str:
    """What the tables are of, as a sentence.

    Args:
        chapter: Of :func:`shift_figures`.
        pictures: Number of all that were evaluated.
    """
    part = "" if chapter["pictures"] == pictures else f" of {pictures} (first by SHA-256)"
    left_out = [name for name in SHIFTS if name not in chapter["by_shift"]]
    without = f", without {', '.join(left_out)}" if left_out else ""
    return (
        f"Under shift: suite {chapter['suite_version']}{without}, {chapter['pictures']} "
        f"pictures{part}, {chapter['cases']} cases ({chapter['positives']} positive); {NOTE}"
    )
