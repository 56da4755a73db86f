"""Comparison of predictions with the truth, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.domain import ANY_REGION, REGIONS
from pipeline.outcome import Verdict

from ..statistics.bootstrap import Flags, Numbers

RIGHT, WRONG_DECISION, WRONG_ROUTE = "right", "wrong decision", "wrong route"
UNSUPPORTED, FAILED, NO_TRUTH = "unsupported", "failed", "no truth"
CATEGORIES = (RIGHT, WRONG_DECISION, WRONG_ROUTE, UNSUPPORTED, FAILED, NO_TRUTH)
"""Outcomes of an input; exactly one applies. The last one: a verdict without a label."""

RIGHTLY, WRONGLY, UNDECIDED = "rightly", "wrongly", "undecided"
"""Correctness of a refusal: no supported region in view, one in view, or unknown."""

POINTING = ("hit", "chance", "cell_hit", "cell_chance")
"""Figures of where a map points; see :func:`points_at`."""

_EPSILON = 1e-7
"""Probabilities are clipped to this distance from 0 and 1 before the logit."""


def specialists(table: pd.DataFrame) -> tuple[str, ...]:
    """The regions, then ``all`` if the table has predictions of a specialist for all regions."""
    return (*REGIONS, ANY_REGION) if f"fracture_{ANY_REGION}" in table else REGIONS


def columns(table: pd.DataFrame, name: str, names: Sequence[str] = REGIONS) -> Numbers:
    """(N, R) values of the columns ``name_REGION``, in the order of ``REGIONS`` or of ``names``."""
    values: Numbers = table[[f"{name}_{region}" for region in names]].to_numpy(np.float64)
    return values


def fired(table: pd.DataFrame, column: str = "fired") -> Flags:
    """(N, R) bool: which regions fired; column ``fired_alone``: by the pixels alone."""
    sets = [set(text.split(";")) for text in table[column]]
    rows = [[region in names for region in REGIONS] for names in sets]
    return np.array(rows, bool).reshape(-1, len(REGIONS))


def routed(table: pd.DataFrame) -> Flags:
    """(N,) rows with an output of the region stage."""
    judged: Flags = np.any(np.isfinite(columns(table, "p")), axis=1)
    return judged


def certain(table: pd.DataFrame) -> Flags:
    """(N, S) whether a picture is certainly a case of each of :func:`specialists`.

    For a region: it is certainly in view. For ``all``: there is no region stage.
    """
    in_view = columns(table, "view") == 1
    return in_view if specialists(table) == REGIONS else np.column_stack([in_view, ~routed(table)])


def possible(table: pd.DataFrame) -> Flags:
    """(N, S) whether a picture may be a case of each of :func:`specialists`.

    For a region: it is not certainly out of view. For ``all``: that holds for at least one
    region, or there is no region stage.
    """
    in_view: Flags = columns(table, "view") != 0
    if specialists(table) == REGIONS:
        return in_view
    return np.column_stack([in_view, in_view.any(1) | ~routed(table)])


def verdicts(table: pd.DataFrame) -> NDArray[np.str_]:
    """(N, S) str: the verdict of each of :func:`specialists`, empty if it did not judge."""
    names = [f"verdict_{name}" for name in specialists(table)]
    values: NDArray[np.str_] = table[names].to_numpy(str)
    return values


def logit(probabilities: Numbers) -> Numbers:
    """Log odds, finite for 0 and 1 too."""
    p = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    odds: Numbers = np.log(p / (1 - p))
    return odds


def add_truth(table: pd.DataFrame) -> pd.DataFrame:
    """Add columns derived from each row, from which figures can be recomputed.

    Returns:
        The table with ``category`` and ``refusal`` (values above); ``called``: whether any
        verdict is positive, ``uncertain``: whether none is and one is uncertain;
        ``in_view_probability``, ``in_view_call`` and ``in_view_margin``: highest probability,
        any call and highest log odds above the threshold among the specialists of which the
        picture is a :func:`certain` case; and :func:`pointing`.
    """
    table = table.assign(category=categories(table), refusal=refusals(table))
    values = verdicts(table)
    judged = (values != "").any(1)
    positive = (values == Verdict.POSITIVE.value).any(1)
    uncertain = (values == Verdict.UNCERTAIN.value).any(1) & ~positive
    names = specialists(table)
    p, threshold = columns(table, "fracture", names), columns(table, "threshold", names)
    known = certain(table) & ~np.isnan(p)
    margin = logit(p) - logit(threshold)
    return table.assign(
        called=np.where(judged, positive, np.nan),
        uncertain=np.where(judged, uncertain, np.nan),
        in_view_probability=_highest(p, known),
        in_view_call=_highest((p >= threshold).astype(np.float64), known),
        in_view_margin=_highest(margin, known),
        **pointing(table),
    )


def _highest(values: Numbers, known: Flags) -> Numbers:
    """(N,) largest known value of each row; NaN without one."""
    best = np.where(known, values, -np.inf).max(1)
    return np.where(known.any(1), best, np.nan)


def categories(table: pd.DataFrame) -> list[str]:
    """Outcome of each row, one of :data:`CATEGORIES`.

    The route is wrong if the picture is a :func:`possible` case of none of the specialists that
    judged it; an unknown region may be in view. Otherwise the decision is right if it equals the
    label, where any positive verdict makes the decision positive.
    """
    judged = verdicts(table) != ""
    misrouted = ~(judged & possible(table)).any(1)
    called = (verdicts(table) == Verdict.POSITIVE.value).any(1)
    label = table["label"].to_numpy(np.float64)
    status = table["status"].to_numpy(str)
    ends: list[str] = np.select(
        [
            status == FAILED,
            status == UNSUPPORTED,
            misrouted,
            np.isnan(label),
            called == (label == 1),
        ],
        [FAILED, UNSUPPORTED, WRONG_ROUTE, NO_TRUTH, RIGHT],
        WRONG_DECISION,
    ).tolist()
    return ends


def refusals(table: pd.DataFrame) -> list[str]:
    """Correctness of the refusal of each unsupported row; empty for the others."""
    view = columns(table, "view")
    kinds = np.select([(view == 1).any(1), (view == 0).all(1)], [WRONGLY, RIGHTLY], UNDECIDED)
    values: list[str] = np.where(table["status"] == UNSUPPORTED, kinds, "").tolist()
    return values


# ------------------------------------------------------------------------------ fracture boxes


def read_boxes(text: str) -> Numbers:
    """(B, 4) corners x0, y0, x1, y1 as fractions of the picture."""
    return np.array([[float(x) for x in part.split()] for part in text.split(";")])


def grown(boxes: Numbers, x: float, y: float) -> Numbers:
    """The boxes extended by ``x`` and ``y`` on each side, clipped to the picture.

    A cell touches a box if and only if its centre is in the box grown by half a cell.
    """
    larger: Numbers = np.clip(boxes + np.array([-x, -y, x, y]), 0.0, 1.0)
    return larger


def covered_share(boxes: Numbers) -> float:
    """Share of the picture inside any box: the hit rate of a random point.

    Args:
        boxes: (B, 4) corners as fractions.
    """
    xs, ys = np.unique(boxes[:, 0::2]), np.unique(boxes[:, 1::2])
    x, y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    within = _inside(boxes, x[None, :, None], y[:, None, None]).any(-1)
    return float((within * np.diff(xs) * np.diff(ys)[:, None]).sum())


def inside_any(boxes: Sequence[Numbers], x: Numbers, y: Numbers) -> Flags:
    """(N,) whether point i is in one of the boxes i, edges included, without tolerance."""
    hits = [bool(_inside(b, np.array([i]), j).any()) for b, i, j in zip(boxes, x, y, strict=True)]
    return np.array(hits, bool)


def _inside(boxes: Numbers, x: Numbers, y: Numbers) -> Flags:
    x0, y0, x1, y1 = boxes.T
    inside: Flags = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    return inside


def marked(table: pd.DataFrame) -> Flags:
    """(N,) fractured rows whose fractures are marked."""
    rows: Flags = ((table["label"] == 1) & (table["boxes"] != "")).to_numpy(bool)
    return rows


def points_at(table: pd.DataFrame, region: str) -> dict[str, Numbers]:
    """Hits of a specialist's map, for rows that have boxes and a map.

    Returns:
        (N,) each: ``hit`` 1 if the centre of the highest cell is in a box, ``chance`` the share
        of the picture inside a box; ``cell_hit`` 1 if any part of that cell is in a box, and
        ``cell_chance`` the share of cell centres for which that holds.
    """
    boxes = [read_boxes(text) for text in table["boxes"]]
    x, y, width, height = (
        table[f"{name}_{region}"].to_numpy(np.float64)
        for name in ("peak_x", "peak_y", "cell_x", "cell_y")
    )
    larger = [grown(b, i / 2, j / 2) for b, i, j in zip(boxes, width, height, strict=True)]
    return {
        "hit": inside_any(boxes, x, y).astype(np.float64),
        "chance": np.array([covered_share(b) for b in boxes]),
        "cell_hit": inside_any(larger, x, y).astype(np.float64),
        "cell_chance": np.array([covered_share(b) for b in larger]),
    }


def pointing(table: pd.DataFrame) -> dict[str, Any]:
    """:func:`points_at` for the most probable specialist with a :func:`certain` case.

    Returns:
        Columns ``pointing_region`` and ``pointing_hit`` to ``pointing_cell_chance``; empty and
        NaN for rows without a marked fracture or without such a specialist.
    """
    names = specialists(table)
    p = columns(table, "fracture", names)
    known = certain(table) & ~np.isnan(columns(table, "peak_x", names))
    rows = marked(table) & known.any(1)
    best = np.array(names)[np.where(known, p, -1.0).argmax(1)]
    added: dict[str, Any] = {"pointing_region": np.where(rows, best, "").tolist()}
    for name in POINTING:
        added[f"pointing_{name}"] = np.full(len(table), np.nan)
    for region in names:
        chosen = rows & (best == region)
        for name, values in points_at(table[chosen], region).items():
            added[f"pointing_{name}"][chosen] = values
    return added
