"""The figures of the region stage, and of the pipeline from end to end. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipeline.bundle import Estimate
from pipeline.domain import REGIONS

from ..metrics import Cases, share
from ..resample import Flags, Numbers
from .figures import Figures, Question, Settings, compare
from .truth import (
    CATEGORIES,
    FAILED,
    NO_TRUTH,
    RIGHT,
    RIGHTLY,
    UNDECIDED,
    UNSUPPORTED,
    WRONG_DECISION,
    WRONGLY,
    columns,
    fired,
    logit,
    routed,
)

SEVERAL = "several"
SEEN = (*REGIONS, SEVERAL, "none", "unknown")
"""Rows of the confusion matrix: what is in view."""
TAKEN = (*REGIONS, SEVERAL, "none", FAILED)
"""Its columns: where the picture was sent."""


def seen(table: pd.DataFrame) -> list[str]:
    """What is in view, one of :data:`SEEN`.

    A set with certain and uncertain members counts as several, one with uncertain members only as
    unknown.
    """
    return [_seen(text) for text in table["regions"]]


def _seen(text: str) -> str:
    if text in (*REGIONS, "none", "unknown"):
        return text
    return "unknown" if {*REGIONS}.isdisjoint(text.split(";")) else SEVERAL


def taken(table: pd.DataFrame) -> list[str]:
    """Where the picture was sent, one of :data:`TAKEN`."""
    sent = fired(table)
    names = np.array([*REGIONS])
    unread = ~routed(table)
    return [
        FAILED if lost else SEVERAL if n > 1 else str(names[row][0]) if n else "none"
        for row, n, lost in zip(sent, sent.sum(1), unread, strict=True)
    ]


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of :data:`SEEN` (rows) by :data:`TAKEN` (columns); they sum to all pictures."""
    counts = Counter(zip(seen(table), taken(table), strict=True))
    cells = [[counts[truth, answer] for answer in TAKEN] for truth in SEEN]
    return pd.DataFrame(cells, index=pd.Index(SEEN, name="in view"), columns=list(TAKEN))


def region_figures(table: pd.DataFrame, settings: Settings) -> Figures | None:
    """Routing: arg-max accuracy, the exact set, refusals, and each region by itself.

    Returns:
        None without a region stage.

        ``accuracy``: the most probable region of pictures with a single one; ``exact``: the
        regions that fired are those in view, where these are known; ``supported_refused`` and
        ``unsupported_refused``: shares of single-region pictures and of pictures without a
        supported region that went to no specialist; each with its baselines and number of
        pictures. ``regions``: :func:`.figures.compare` of each region's firing. ``confusion``.
    """
    if settings.no_region_stage:
        return None
    view, p, sent = columns(table, "view"), columns(table, "p"), fired(table)
    twin = columns(table, "twin_view")
    readable = routed(table)
    single: Flags = readable & table["regions"].isin(REGIONS).to_numpy(bool)
    certain: Flags = readable & ~np.isnan(view).any(1)
    none: Flags = readable & (table["regions"] == "none").to_numpy(bool)
    best = np.nan_to_num(p, nan=-1.0).argmax(1)
    right = view[np.arange(len(table)), best] == 1
    refused: Flags = np.logical_not(np.any(sent, axis=1))
    usual = _commonest(view[single])
    common = _commonest(view[certain])
    return {
        "accuracy": _rates(
            table, single, right, (view == usual).all(1), _agrees(twin, view), settings
        ),
        "exact": _rates(
            table, certain, (sent == view).all(1), (view == common).all(1), _agrees(twin, view),
            settings,
        ),
        "supported_refused": _rates(
            table, single, refused, np.full(len(table), not common.any()), _nothing(twin), settings
        ),
        "unsupported_refused": _rates(
            table, none, refused, np.full(len(table), not common.any()), _nothing(twin), settings
        ),
        "regions": {
            region: compare(_firing(table, k, readable), settings)
            for k, region in enumerate(REGIONS)
        },
        "confusion": {
            "in_view": list(SEEN), "sent_to": list(TAKEN),
            "counts": confusion(table).to_numpy().tolist(),
        },
    }  # fmt: skip


def _commonest(view: Numbers) -> Numbers:
    """(R,) the most frequent row; the first in order among equals, nothing for no rows."""
    if len(view) == 0:
        return np.zeros(len(REGIONS))
    kinds, counts = np.unique(view, axis=0, return_counts=True)
    usual: Numbers = kinds[counts.argmax()]
    return usual


def _agrees(twin: Numbers, view: Numbers) -> Numbers:
    """(N,) 1 where the twin shows the same regions, 0 where others, NaN without a twin."""
    same = (np.nan_to_num(twin, nan=-1.0) == view).all(1)
    return np.where(np.isnan(twin).all(1), np.nan, same)


def _nothing(twin: Numbers) -> Numbers:
    """(N,) 1 where the twin shows no supported region, NaN without a twin."""
    return np.where(np.isnan(twin).all(1), np.nan, (twin == 0).all(1))


def _rates(
    table: pd.DataFrame, rows: Flags, hits: Flags, usual: Flags, twins: Numbers, settings: Settings
) -> Figures:  # fmt: skip
    """A share among some rows, for the network and both baselines."""
    groups = table["group"].to_numpy(str)
    found = rows & ~np.isnan(twins)
    return {
        "pictures": int(rows.sum()),
        "network": share(hits[rows], groups[rows].tolist()),
        "majority": share(usual[rows], groups[rows].tolist()),
        "look_up": Estimate(value=None, note=settings.no_twins)
        if settings.no_twins
        else share(twins[found] == 1, groups[found].tolist()),
    }


def _firing(table: pd.DataFrame, place: int, readable: Flags) -> Question:
    """Whether one region fires, for the pictures of which it is known whether it is in view."""
    view, p = columns(table, "view")[:, place], columns(table, "p")[:, place]
    threshold = columns(table, "route_threshold")[:, place]
    rows = readable & ~np.isnan(view) & ~np.isnan(p)
    groups = table["group"].to_numpy(str)
    cases = Cases(view == 1, p, fired(table)[:, place], groups)[rows]
    likeness = table["twin_likeness"].to_numpy(np.float64)[rows]
    margin = (logit(p) - logit(threshold))[rows]
    twins = columns(table, "twin_view")[rows, place]
    return Question(cases, twins, likeness, margin, np.flatnonzero(rows))


# ------------------------------------------------------------------------------- end to end


def end_to_end_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """How every input ends, over all and by what is in view; the counts sum to all inputs.

    Returns:
        By part (``all``, then :data:`SEEN` where it occurs): ``pictures``, ``counts`` and
        ``shares`` by category, ``refused`` by whether that was right, ``uncertain`` among right
        and wrong decisions, and ``accuracy`` with its baselines: right or rightly refused,
        among all inputs.
    """
    return {name: _ends(table[rows], settings) for name, rows in _parts(table)}


def _parts(table: pd.DataFrame) -> Iterator[tuple[str, Flags]]:
    yield "all", np.ones(len(table), bool)
    truth = np.array(seen(table))
    for name in SEEN:
        if (truth == name).any():
            yield name, truth == name


def _ends(table: pd.DataFrame, settings: Settings) -> Figures:
    ends = table["category"].to_numpy(str)
    refusal = table["refusal"].to_numpy(str)
    groups = table["group"].tolist()
    doubted = table["uncertain"].to_numpy(np.float64) == 1
    shown = [name for name in CATEGORIES if name != NO_TRUTH or NO_TRUTH in ends]
    usual = max(_constants(table, settings), key=lambda hits: int(hits.sum()))
    good = (ends == RIGHT) | (refusal == RIGHTLY)
    every = np.ones(len(table), bool)
    return {
        "pictures": len(table),
        "groups": len(set(groups)),
        "counts": {name: int((ends == name).sum()) for name in shown},
        "shares": {name: share(ends == name, groups) for name in shown},
        "refused": {
            worth: int(((ends == UNSUPPORTED) & (refusal == worth)).sum())
            for worth in (RIGHTLY, WRONGLY, UNDECIDED)
        },
        "uncertain": {
            name: int(((ends == name) & doubted).sum()) for name in (RIGHT, WRONG_DECISION)
        },
        "accuracy": _rates(table, every, good, usual, _looked_up(table, settings), settings),
    }


def _constants(table: pd.DataFrame, settings: Settings) -> Iterator[Flags]:
    """Which rows each constant answer gets right: refuse all, or call all negative, or positive.

    Without a region stage nothing can be refused, and a verdict counts on whatever is in view.
    """
    none = (columns(table, "view") == 0).all(1)
    label = table["label"].to_numpy(np.float64)
    judged = np.ones(len(table), bool) if settings.no_region_stage else ~none
    yield none & ~judged
    yield judged & (label == 0)
    yield judged & (label == 1)


def _looked_up(table: pd.DataFrame, settings: Settings) -> Numbers:
    """(N,) whether the twins' regions and label would have ended right; 0 without a twin."""
    view, twin = columns(table, "view"), columns(table, "twin_view")
    agrees = table["twin_label"].to_numpy(np.float64) == table["label"].to_numpy(np.float64)
    refuses = (twin == 0).all(1)
    sent = ((twin == 1) & (view != 0)).any(1)
    right = np.where(refuses, (view == 0).all(1), sent & agrees)
    ends: Numbers = (agrees if settings.no_region_stage else right).astype(np.float64)
    return ends
