"""Evaluation under synthetic shifts: figures by shift, and their mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bundle import Estimate
from pipeline.config import RunConfig
from pipeline.domain import ANY_REGION, REGIONS, Array, XrayImage
from pipeline.errors import UsageError
from pipeline.outcome import Status
from pipeline.progress import Progress
from pipeline.runtime.session import Weights

from ..samples import NONE, Box, Sample
from ..statistics.bootstrap import Flags, interval
from ..statistics.metrics import Cases, Drawn, drawn_binary_figures, drawn_share
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
"""The figures of a shift, with their display names."""

PANEL, WIDE_PANEL = 3, 6
"""Figures per table in a terminal of 80 characters, and on the page."""

MEAN = "mean"

NOTE = (
    "answered: pictures of a single supported region that get a verdict; let in: pictures without "
    "a supported region that get one; AUC to ECE: all pictures with a region in view, refused or "
    "not, one case per picture and region; * of positive or uncertain"
)


@dataclass(frozen=True, slots=True)
class ShiftSelection:
    """Selected shifts and pictures.

    Attributes:
        names: Some of :data:`.shifts.SHIFTS`, in that order.
        limit: Number of pictures; None for all.
    """

    names: tuple[str, ...] = SHIFTS
    limit: int | None = None


def select_shifts(only: Sequence[str], limit: int | None) -> ShiftSelection:
    """The named shifts, or the whole suite if none is named.

    Raises:
        UsageError: A name is unknown.
    """
    unknown = sorted(set(only) - set(SHIFTS))
    if unknown:
        raise UsageError(
            f"--only-shifts: unknown shift {', '.join(unknown)}; choose from {', '.join(SHIFTS)}"
        )
    return ShiftSelection(tuple(name for name in SHIFTS if name in only or not only), limit)


def fixed_part(samples: Sequence[Sample], limit: int | None) -> Flags:
    """(N,) reproducible selection of pictures: the first by SHA-256."""
    order = sorted(range(len(samples)), key=lambda i: (samples[i].sha256, str(samples[i].path)))
    chosen = np.zeros(len(samples), np.bool_)
    chosen[order[:limit]] = True
    return chosen


def predict_shifts(
    samples: Sequence[Sample], home: pd.DataFrame, root: Path, weights: Weights,
    config: RunConfig, selection: ShiftSelection, progress: Progress,
) -> pd.DataFrame:  # fmt: skip
    """Apply every network to every selected picture under every selected shift.

    Args:
        samples: Rows of the table.
        home: Their predictions from :func:`.predictions.predict`.
        root: Folder of the table.
        weights: Opened bundles.
        config: The settings they were opened with.
        selection: Shifts, and the number of pictures.
        progress: Advanced once per picture and shift.

    Returns:
        The column ``shift``, then those of :func:`.predictions.predict`; first the rows of
        ``home`` for the selected pictures, then their rows under each shift, with the size and
        the fracture boxes of the changed picture.

    Raises:
        DeviceError: Inference on the device failed.
    """
    rows = fixed_part(samples, selection.limit)
    part = [sample for sample, chosen in zip(samples, rows, strict=True) if chosen]
    tables = {HOME: home[rows]}
    for name in selection.names:

        def change(
            image: XrayImage, boxes: tuple[Box, ...], name: str = name
        ) -> tuple[Array, tuple[Box, ...]]:
            return shifted(name, image.pixels, boxes, str(image.source.sha256))

        tables[name], _ = predict(part, root, weights, config, progress, change)
    shared = list(tables[selection.names[-1]].columns)
    named = [table[shared].assign(shift=name) for name, table in tables.items()]
    return pd.concat(named, ignore_index=True)[["shift", *shared]]


def shift_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """The figures of each shift, and the mean of each figure over the shifts.

    Args:
        table: From :func:`predict_shifts`.
        settings: Seed, and the reason why nothing was routed.

    Returns:
        ``suite_version``, ``pictures``, ``groups``, ``cases`` and ``positives`` (of the fracture
        figures); under ``by_shift`` for each shift, ``none`` first, its :data:`FIGURES`; under
        ``mean`` the mean over the shifts without ``none``. All shifts use the same draws of
        groups, so that the interval of a mean accounts for the shared pictures.
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
class _Figure:
    """A figure and the groups of its cases; equal groups have equal draws."""

    drawn: Drawn
    groups: tuple[str, ...]


def _drawn(table: pd.DataFrame, settings: Settings) -> dict[str, _Figure]:
    """Every figure of one shift."""
    figures = _routing(table, settings)
    called = _pooled(table, "threshold")
    binary = drawn_binary_figures(called, seed=settings.seed)
    or_uncertain = drawn_binary_figures(_pooled(table, "doubt_below"), seed=settings.seed)
    groups = tuple(called.groups)
    figures |= {
        name: _Figure(binary[name], groups) for name in ("auc", "sensitivity", "specificity", "ece")
    }
    figures |= {
        f"{name}_or_uncertain": _Figure(or_uncertain[name], groups)
        for name in ("sensitivity", "specificity")
    }
    for region in REGIONS:
        cases = cases_in_view(table, region)
        auc = drawn_binary_figures(cases, seed=settings.seed)["auc"]
        figures[f"auc_{region}"] = _Figure(auc, tuple(cases.groups))
    return {name: figures[name] for name in FIGURES}


def _pooled(table: pd.DataFrame, bound: str) -> Cases:
    """One case per picture and region; per picture if there is only a specialist for all."""
    cases = cases_in_view(table, POOLED, bound)
    if len(cases) == 0 and f"fracture_{ANY_REGION}" in table:
        return cases_in_view(table, ANY_REGION, bound)
    return cases


def _routing(table: pd.DataFrame, settings: Settings) -> dict[str, _Figure]:
    """Shares of judged pictures with a verdict, and with the right most probable region."""
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
        undefined = Drawn(Estimate(value=None, note=settings.no_region_stage), np.zeros(0))
        figures["region_accuracy"] = _Figure(undefined, ())
    return figures


def _share(table: pd.DataFrame, rows: Flags, hits: Flags) -> _Figure:
    groups = table["group"].to_numpy(str)[rows].tolist()
    return _Figure(drawn_share(hits[rows], groups), tuple(groups))


def _mean(shifts: Sequence[_Figure]) -> Estimate:
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
    """The result of :func:`shift_figures` as tables of ``width`` figures each.

    Yields:
        Titles of the columns after the first; and the name and estimates of each row, home first
        and the mean last.
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
    """Caption of the tables.

    Args:
        chapter: From :func:`shift_figures`.
        pictures: Number of all evaluated pictures.
    """
    part = "" if chapter["pictures"] == pictures else f" of {pictures} (first by SHA-256)"
    omitted = [name for name in SHIFTS if name not in chapter["by_shift"]]
    without = f", without {', '.join(omitted)}" if omitted else ""
    return (
        f"Under shift: suite {chapter['suite_version']}{without}, {chapter['pictures']} "
        f"pictures{part}, {chapter['cases']} cases ({chapter['positives']} positive); {NOTE}"
    )
