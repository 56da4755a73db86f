"""Figures of the evidence maps: how often they point at a marked fracture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.bundle import Estimate
from pipeline.outcome import Verdict

from ..statistics.bootstrap import Flags, Numbers
from ..statistics.metrics import bootstrap, share
from .figures import IN_VIEW, POOLED, Figures, Settings, members
from .truth import POINTING, marked, pointing, points_at, specialists

CALLED = "true positives"
"""Name of the figures of the true positives among the pooled pictures."""


def pointing_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """How often the map points at a marked fracture, by region in view and pooled.

    Returns:
        By region, pooled, and for the true positives among the pooled pictures: ``pictures``, and
        under ``centre`` (the centre of the highest cell is in a box) and ``cell`` (any part of it
        is) the estimates ``network``, ``chance`` (a cell at a random place), ``margin`` (their
        difference on the same pictures) and ``middle`` (a cell in the middle of the picture). A
        peak in the padding is a miss unless its cell touches a box.
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
        peaks, middles = (
            {name: rows[f"pointing_{name}"].to_numpy(np.float64) for name in POINTING}
            for rows in (part, part.assign(**pointing(middle)))
        )
        figures[name] = _pointing(part, peaks, middles, settings)
    return figures


def _called(table: pd.DataFrame) -> Flags:
    """Pictures with a positive verdict of the specialist whose map is evaluated."""
    called = np.zeros(len(table), np.bool_)
    for region in specialists(table):
        rows = (table["pointing_region"] == region).to_numpy(np.bool_)
        called |= rows & (table[f"verdict_{region}"] == Verdict.POSITIVE.value).to_numpy(np.bool_)
    return called


def _pointing(
    table: pd.DataFrame, peaks: Mapping[str, Numbers], middles: Mapping[str, Numbers],
    settings: Settings,
) -> Figures:  # fmt: skip
    groups = table["group"].tolist()

    def estimates(kind: str) -> Figures:
        hits, chances = peaks[f"{kind}hit"] == 1, peaks[f"{kind}chance"]
        chance = margin = Estimate(value=None, note="no cases")
        if groups:
            chance = bootstrap(lambda rows: float(chances[rows].mean()), groups, settings.seed)
            excess = hits - chances
            margin = bootstrap(lambda rows: float(excess[rows].mean()), groups, settings.seed)
        return {
            "network": share(hits, groups),
            "chance": chance,
            "margin": margin,
            "middle": share(middles[f"{kind}hit"] == 1, groups),
        }

    return {"pictures": len(table), "centre": estimates(""), "cell": estimates("cell_")}
