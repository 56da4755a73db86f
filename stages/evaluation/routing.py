"""Figures of the region stage, and of the pipeline end to end. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipeline.bundle import Estimate
from pipeline.domain import REGIONS

from ..statistics.bootstrap import Flags, Numbers
from ..statistics.metrics import Cases, share
from .figures import CaseSet, Figures, Settings, compare
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
VIEW_CLASSES = (*REGIONS, SEVERAL, "none", "unknown")
"""Rows of the confusion matrix: the region in view."""
DESTINATIONS = (*REGIONS, SEVERAL, "none", FAILED)
"""Columns of the confusion matrix: where the picture was sent."""


def view_classes(table: pd.DataFrame) -> list[str]:
    """Region in view, one of :data:`VIEW_CLASSES`.

    A set with certain and uncertain members counts as several, one with uncertain members only as
    unknown.
    """
    return [_view_class(text) for text in table["regions"]]


def _view_class(text: str) -> str:
    if text in (*REGIONS, "none", "unknown"):
        return text
    return "unknown" if {*REGIONS}.isdisjoint(text.split(";")) else SEVERAL


def destinations(table: pd.DataFrame) -> list[str]:
    """Where the picture was sent, one of :data:`DESTINATIONS`."""
    sent = fired(table)
    names = np.array([*REGIONS])
    unread = ~routed(table)
    return [
        FAILED if lost else SEVERAL if n > 1 else str(names[row][0]) if n else "none"
        for row, n, lost in zip(sent, sent.sum(1), unread, strict=True)
    ]


def confusion(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of :data:`VIEW_CLASSES` (rows) by :data:`DESTINATIONS` (columns)."""
    counts = Counter(zip(view_classes(table), destinations(table), strict=True))
    cells = [[counts[truth, answer] for answer in DESTINATIONS] for truth in VIEW_CLASSES]
    return pd.DataFrame(
        cells, index=pd.Index(VIEW_CLASSES, name="in view"), columns=list(DESTINATIONS)
    )


def region_figures(table: pd.DataFrame, settings: Settings) -> Figures | None:
    """Routing: arg-max accuracy, exact set, refusals, and each region separately.

    Returns:
        None without a region stage.

        ``accuracy``: the most probable region is right, for pictures with a single region;
        ``exact``: the regions that fired are those in view, if these are known;
        ``supported_refused`` and ``unsupported_refused``: shares of single-region pictures and of
        pictures without a supported region that were sent to no specialist; each with its
        baselines and number of pictures. ``regions``: :func:`.figures.compare` of each region's
        firing. ``confusion``.
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
    usual_single = _most_frequent(view[single])
    usual_set = _most_frequent(view[certain])
    return {
        "accuracy": _rates(
            table, single, right, (view == usual_single).all(1), _agrees(twin, view), settings
        ),
        "exact": _rates(
            table, certain, (sent == view).all(1), (view == usual_set).all(1),
            _agrees(twin, view), settings,
        ),
        "supported_refused": _rates(
            table, single, refused, np.full(len(table), not usual_set.any()),
            _unsupported(twin), settings,
        ),
        "unsupported_refused": _rates(
            table, none, refused, np.full(len(table), not usual_set.any()),
            _unsupported(twin), settings,
        ),
        "regions": {
            region: compare(_firing(table, k, readable), settings)
            for k, region in enumerate(REGIONS)
        },
        "confusion": {
            "in_view": list(VIEW_CLASSES), "sent_to": list(DESTINATIONS),
            "counts": confusion(table).to_numpy().tolist(),
        },
    }  # fmt: skip


def _most_frequent(view: Numbers) -> Numbers:
    """(R,) the most frequent row; the first in order on a tie, zeros for no rows."""
    if len(view) == 0:
        return np.zeros(len(REGIONS))
    kinds, counts = np.unique(view, axis=0, return_counts=True)
    usual: Numbers = kinds[counts.argmax()]
    return usual


def _agrees(twin: Numbers, view: Numbers) -> Numbers:
    """(N,) 1 if the twin shows the same regions, 0 if others, NaN without a twin."""
    same = (np.nan_to_num(twin, nan=-1.0) == view).all(1)
    return np.where(np.isnan(twin).all(1), np.nan, same)


def _unsupported(twin: Numbers) -> Numbers:
    """(N,) 1 if the twin shows no supported region, else 0, NaN without a twin."""
    return np.where(np.isnan(twin).all(1), np.nan, (twin == 0).all(1))


def _rates(
    table: pd.DataFrame, rows: Flags, hits: Flags, usual: Flags, twins: Numbers, settings: Settings
) -> Figures:  # fmt: skip
    """A share of the selected rows, for the network and both baselines."""
    groups = table["group"].to_numpy(str)
    known = rows & ~np.isnan(twins)
    return {
        "pictures": int(rows.sum()),
        "network": share(hits[rows], groups[rows].tolist()),
        "majority": share(usual[rows], groups[rows].tolist()),
        "look_up": Estimate(value=None, note=settings.no_twins)
        if settings.no_twins
        else share(twins[known] == 1, groups[known].tolist()),
    }


def _firing(table: pd.DataFrame, column: int, readable: Flags) -> CaseSet:
    """Cases of one region's firing, for pictures of which it is known whether it is in view."""
    view, p = columns(table, "view")[:, column], columns(table, "p")[:, column]
    threshold = columns(table, "route_threshold")[:, column]
    rows = readable & ~np.isnan(view) & ~np.isnan(p)
    groups = table["group"].to_numpy(str)
    cases = Cases(view == 1, p, fired(table)[:, column], groups)[rows]
    likeness = table["twin_likeness"].to_numpy(np.float64)[rows]
    margin = (logit(p) - logit(threshold))[rows]
    twins = columns(table, "twin_view")[rows, column]
    return CaseSet(cases, twins, likeness, margin, np.flatnonzero(rows))


# ------------------------------------------------------------------------------- end to end


def end_to_end_figures(table: pd.DataFrame, settings: Settings) -> Figures:
    """Outcomes of all inputs, over all and by region in view; the counts sum to all inputs.

    Returns:
        By part (``all``, then those of :data:`VIEW_CLASSES` that occur): ``pictures``, ``counts``
        and ``shares`` by category, ``refused`` by correctness, ``uncertain`` among right and wrong
        decisions, and ``accuracy`` with its baselines: right or correctly refused, among all
        inputs.
    """
    return {name: _ends(table[rows], settings) for name, rows in _parts(table)}


def _parts(table: pd.DataFrame) -> Iterator[tuple[str, Flags]]:
    yield "all", np.ones(len(table), bool)
    truth = np.array(view_classes(table))
    for name in VIEW_CLASSES:
        if (truth == name).any():
            yield name, truth == name


def _ends(table: pd.DataFrame, settings: Settings) -> Figures:
    ends = table["category"].to_numpy(str)
    refusal = table["refusal"].to_numpy(str)
    groups = table["group"].tolist()
    uncertain = table["uncertain"].to_numpy(np.float64) == 1
    names = [name for name in CATEGORIES if name != NO_TRUTH or NO_TRUTH in ends]
    usual = max(_constants(table, settings), key=lambda hits: int(hits.sum()))
    correct = (ends == RIGHT) | (refusal == RIGHTLY)
    all_rows = np.ones(len(table), bool)
    return {
        "pictures": len(table),
        "groups": len(set(groups)),
        "counts": {name: int((ends == name).sum()) for name in names},
        "shares": {name: share(ends == name, groups) for name in names},
        "refused": {
            kind: int(((ends == UNSUPPORTED) & (refusal == kind)).sum())
            for kind in (RIGHTLY, WRONGLY, UNDECIDED)
        },
        "uncertain": {
            name: int(((ends == name) & uncertain).sum()) for name in (RIGHT, WRONG_DECISION)
        },
        "accuracy": _rates(table, all_rows, correct, usual, _looked_up(table, settings), settings),
    }


def _constants(table: pd.DataFrame, settings: Settings) -> Iterator[Flags]:
    """Rows for which each constant answer is right: refuse all, all negative, or all positive.

    Without a region stage nothing is refused, and a verdict counts for every region in view.
    """
    none = (columns(table, "view") == 0).all(1)
    label = table["label"].to_numpy(np.float64)
    judged = np.ones(len(table), bool) if settings.no_region_stage else ~none
    yield none & ~judged
    yield judged & (label == 0)
    yield judged & (label == 1)


def _looked_up(table: pd.DataFrame, settings: Settings) -> Numbers:
    """(N,) 1 if the twin's regions and label give the right outcome, else 0; 0 without a twin."""
    view, twin = columns(table, "view"), columns(table, "twin_view")
    agrees = table["twin_label"].to_numpy(np.float64) == table["label"].to_numpy(np.float64)
    refuses = (twin == 0).all(1)
    sent = ((twin == 1) & (view != 0)).any(1)
    right = np.where(refuses, (view == 0).all(1), sent & agrees)
    ends: Numbers = (agrees if settings.no_region_stage else right).astype(np.float64)
    return ends
