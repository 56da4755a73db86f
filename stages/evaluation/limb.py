"""Figures of maps that peak off the limb, where heatmaps are not drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.outcome import Verdict

from ..statistics.bootstrap import Flags
from ..statistics.metrics import bootstrap, share
from .figures import POOLED, Figures, Settings
from .truth import specialists

_DRAWN = (Verdict.POSITIVE.value, Verdict.UNCERTAIN.value)
"""Verdicts for which a heatmap is drawn by default."""


def limb_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """Share of the drawn maps that peak off the limb.

    Returns:
        By specialist, and pooled over all maps: ``maps``, their number; the estimates
        ``off_limb``, the share that peaks off the limb (key, cassette edge, air), and ``hidden``,
        the mean share of a map's evidence that is off the limb and not drawn.
    """
    parts = {region: _maps(table, region) for region in specialists(table)}
    pooled = pd.concat(parts.values())
    return {name: _figures(part, settings) for name, part in {**parts, POOLED: pooled}.items()}


def limb_note(figures: Figures) -> str:
    """The pooled figures as a sentence."""
    pooled = figures[POOLED]
    if not pooled["maps"]:
        return "Maps off the limb: no map was drawn."
    count = round(pooled["off_limb"].value * pooled["maps"])
    return (
        f"Maps off the limb: {count} of {pooled['maps']} maps of positive and uncertain findings "
        f"peak off the limb; {pooled['hidden'].value:.1%} of all evidence is off the limb and not "
        "drawn."
    )


def _maps(table: pd.DataFrame, region: str) -> pd.DataFrame:
    """Maps of one specialist's positive and uncertain verdicts."""
    drawn: Flags = table[f"verdict_{region}"].isin(_DRAWN).to_numpy(np.bool_)
    known: Flags = table[f"off_limb_{region}"].notna().to_numpy(np.bool_)
    names = {f"off_limb_{region}": "off_limb", f"hidden_{region}": "hidden"}
    return table.loc[drawn & known, ["group", *names]].rename(columns=names)


def _figures(maps: pd.DataFrame, settings: Settings) -> Figures:
    groups = maps["group"].tolist()
    hidden = maps["hidden"].to_numpy(np.float64)
    off_limb = share((maps["off_limb"] == 1).to_numpy(np.bool_), groups)
    mean = off_limb  # undefined for the same reason
    if groups:
        mean = bootstrap(lambda rows: float(hidden[rows].mean()), groups, settings.seed)
    return {"maps": len(maps), "off_limb": off_limb, "hidden": mean}
