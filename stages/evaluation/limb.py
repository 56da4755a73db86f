"""How often a map means a place off the limb: what a reader is not shown, counted."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.domain import Verdict

from ..metrics import bootstrap, share
from ..resample import Flags
from .figures import POOLED, Figures, Settings
from .truth import specialists

_DRAWN = (Verdict.POSITIVE.value, Verdict.UNCERTAIN.value)
"""Verdicts for which a heatmap is drawn unless a user asks for others."""


def limb_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """Of the maps that a reader is shown, those that are highest off the limb.

    Returns:
        By specialist, and pooled over all maps: ``maps``, how many there are; the estimates
        ``off_limb``, the share that is highest off the limb (key, cassette edge, air), and
        ``hidden``, the mean share of a map's evidence that lies there and is not drawn.
    """
    parts = {region: _maps(table, region) for region in specialists(table)}
    whole = pd.concat(parts.values())
    return {name: _figures(part, settings) for name, part in {**parts, POOLED: whole}.items()}


def limb_note(figures: Figures) -> str:
    """The same in a sentence."""
    pooled = figures[POOLED]
    if not pooled["maps"]:
        return "Maps off the limb: none was drawn."
    count = round(pooled["off_limb"].value * pooled["maps"])
    return (
        f"Maps off the limb: {count} of {pooled['maps']} of positive and uncertain findings are "
        f"highest there; {pooled['hidden'].value:.1%} of all evidence lies there and is not drawn."
    )


def _maps(table: pd.DataFrame, region: str) -> pd.DataFrame:
    """Maps of one specialist; those of a region that nobody was asked about have no verdict."""
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
