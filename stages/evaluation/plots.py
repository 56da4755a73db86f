"""Plots: ROC, reliability, confusion, risk–coverage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.domain import ANY_REGION, REGIONS
from pipeline.io.own_output import MAKER
from pipeline.regions import TABLE

from ..statistics.bootstrap import Numbers, aurc, drawn_weights, roc_draws
from ..statistics.metrics import BOOTSTRAPS, Cases, auc, probability_bins, rate
from .baselines import majority
from .figures import IN_VIEW, POOLED, Settings, case_set, measured, risk_cases, risk_curve
from .routing import confusion

NETWORK, BASELINE = "#1f5a99", "#8a8a8a"
COLOURS = {
    **{region.name: region.colour for region in TABLE}, POOLED: "#222222", ANY_REGION: "#7a4b9a",
}  # fmt: skip
NAMES = {POOLED: "regions pooled", ANY_REGION: "all, one specialist"}
DPI = 120
_PER_LINE = 2
"""Panels."""


def draw_all(table: pd.DataFrame, folder: Path, settings: Settings) -> tuple[Path, ...]:
    """Draw every plot into a folder.

    Args:
        table: Predictions with truth and twins.
        folder: Output folder; without a region stage an older confusion matrix is deleted.
        settings: Seed of the ROC bands, and whether there is a region stage.

    Returns:
        The files: ROC, reliability, risk–coverage, and with a region stage the confusion matrix.
    """
    figures = {
        "roc.png": draw_roc(table, settings.seed),
        "reliability.png": draw_reliability(table),
        "risk_coverage.png": draw_risk(table),
    }
    if settings.no_region_stage:
        (folder / "confusion.png").unlink(missing_ok=True)
    else:
        figures["confusion.png"] = draw_confusion(table)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=DPI, metadata={"Software": MAKER})
    return tuple(folder / name for name in figures)


def _panels(figure: Figure, table: pd.DataFrame) -> Iterator[tuple[str, Axes, Cases]]:
    """A square panel per region, and one for the specialist for all or for the pooled cases.

    The height of the figure is that of two rows of panels; more rows make it higher.
    """
    panels = (*REGIONS, measured(table)[-1])
    rows = -(-len(panels) // _PER_LINE)
    figure.set_figheight(figure.get_figheight() * rows / _PER_LINE)
    for place, region in enumerate(panels):
        axes = figure.add_subplot(rows, _PER_LINE, place + 1)
        axes.set_aspect("equal")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.plot([0, 1], [0, 1], color=BASELINE, linestyle="--", linewidth=1)
        axes.grid(alpha=0.25)
        cases = case_set(table, region, IN_VIEW).cases
        positive = int(cases.labels.sum())
        axes.set_title(
            f"{NAMES.get(region, region)}: {positive} of {len(cases)} positive", fontsize="medium"
        )
        yield region, axes, cases


def draw_roc(table: pd.DataFrame, seed: int) -> Figure:
    """ROC of each specialist on pictures with its region in view, with a 95 % band over groups."""
    figure = Figure(figsize=(8.4, 8.6), layout="constrained")
    for _, axes, cases in _panels(figure, table):
        axes.set(xlabel="1 - specificity", ylabel="sensitivity")
        value = auc(cases.labels.astype(np.float32), cases.scores.astype(np.float32))
        if value is None:
            _put_text(axes, "undefined: needs both\npositive and negative cases")
            continue
        grid, low, high = roc_band(cases, seed)
        axes.fill_between(grid, low, high, color=NETWORK, alpha=0.18, linewidth=0, label="95 %")
        false, true = roc_draws(cases.labels, cases.scores, np.ones((1, len(cases))))
        axes.plot(false[0], true[0], color=NETWORK, label=f"AUC {value:.3f}")
        called = cases.calls
        axes.plot(
            called[~cases.labels].mean(), called[cases.labels].mean(), "o", color=NETWORK,
            label="operating point",
        )  # fmt: skip
        axes.plot([], [], color=BASELINE, linestyle="--", linewidth=1, label="chance, AUC 0.5")
        axes.legend(loc="lower right", fontsize="small")
    return figure


def roc_band(cases: Cases, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """Pointwise 95 % band of sensitivity, resampled by group.

    Args:
        cases: Must contain both classes.
        seed: Seed of the draws.

    Returns:
        (101,) false positive rate, lower and upper sensitivity.
    """
    grid = np.linspace(0, 1, 101)
    curves = [
        np.interp(grid, false, true)
        for weights in drawn_weights(cases.groups.tolist(), BOOTSTRAPS, seed)
        for false, true in zip(*roc_draws(cases.labels, cases.scores, weights), strict=True)
        if np.isfinite(false[-1]) and np.isfinite(true[-1])
    ]
    low, high = np.percentile(curves, [2.5, 97.5], axis=0) if curves else (grid * 0, grid * 0 + 1)
    return grid, low, high


def draw_reliability(table: pd.DataFrame) -> Figure:
    """Share of positive pictures by predicted probability, in the bins of the ECE."""
    figure = Figure(figsize=(8.4, 9.2), layout="constrained")
    for _, axes, cases in _panels(figure, table):
        axes.set(xlabel="mean predicted probability", ylabel="share positive", ylim=(-0.01, 1.12))
        axes.set_yticks(np.linspace(0, 1, 6))
        if not len(cases):
            _put_text(axes, "no cases")
            continue
        axes.axhline(cases.labels.mean(), color=BASELINE, linestyle=":", linewidth=1.2)
        bins = probability_bins(cases.scores)
        for i, k in enumerate(np.unique(bins)):
            chosen = bins == k
            hits, count = int(cases.labels[chosen].sum()), int(chosen.sum())
            x, estimate = cases.scores[chosen].mean(), rate(hits, count)
            axes.plot(
                [x, x], [estimate.low or 0.0, estimate.high or 0.0], color=NETWORK, linewidth=1.2
            )
            axes.plot(x, hits / count, "o", color=NETWORK, markersize=3 + 2 * np.log10(count))
            # Alternate the height of the counts: means of neighbouring bins may be close.
            axes.text(x, 1.03 + 0.045 * (i % 2), str(count), ha="center", fontsize="x-small")
    legend = [
        Line2D([], [], color=NETWORK, marker="o", label="bin with 95 % (Wilson); count on top"),
        Line2D([], [], color=BASELINE, linestyle="--", linewidth=1, label="perfect"),
        Line2D([], [], color=BASELINE, linestyle=":", label="share positive among all"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def draw_confusion(table: pd.DataFrame) -> Figure:
    """Confusion matrix of routing, by regions in view; shaded by share of the row."""
    counts = confusion(table)
    counts = counts.loc[counts.sum(axis=1) > 0]
    cells = counts.to_numpy()
    shares = cells / np.maximum(cells.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6.8, 1.6 + 0.62 * len(counts)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*cells.shape):
        dark = shares[row, column] > 0.5
        axes.text(
            column, row, str(cells[row, column]), ha="center", va="center",
            color="white" if dark else "black" if cells[row, column] else BASELINE,
        )  # fmt: skip
    names = [f"{name} ({n})" for name, n in zip(counts.index, cells.sum(1), strict=True)]
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(cells.shape[1]), list(counts.columns))
    axes.set(xlabel="sent to", ylabel="in view (pictures)")
    figure.colorbar(image, ax=axes, label="share of the row")
    return figure


def draw_risk(table: pd.DataFrame) -> Figure:
    """Error rate of the most confident decisions, by coverage."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for region in measured(table):
        selection = risk_cases(table, region)
        if not len(selection.cases):
            continue
        coverage, risk = risk_curve(selection)
        name = NAMES.get(region, region)
        area = float(aurc(coverage[None], risk[None])[0])
        axes.step(
            np.r_[0, coverage], np.r_[risk[:1], risk], where="pre", color=COLOURS[region],
            linewidth=2 if region == POOLED else 1.2,
            label=f"{name}: AURC {area:.3f}, {len(selection.cases)} pictures",
        )  # fmt: skip
        if region == POOLED:
            baseline = majority(selection.cases)
            error_rate = float((baseline.calls != baseline.labels).mean())
            axes.axhline(
                error_rate, color=BASELINE, linestyle="--", linewidth=1,
                label=f"majority class, all regions: {error_rate:.3f}",
            )  # fmt: skip
    axes.set(
        xlabel="coverage: share of pictures decided, most confident first",
        ylabel="risk: share of wrong decisions", xlim=(0, 1.005),
    )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    return figure


def _put_text(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=BASELINE)
