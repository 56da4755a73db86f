"""What each answer is worth: predictions beside the truth, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.domain import ANY_REGION, REGIONS, Verdict

from ..resample import Flags, Numbers

RIGHT, WRONG_DECISION, WRONG_ROUTE = "right", "wrong decision", "wrong route"
UNSUPPORTED, FAILED, NO_TRUTH = "unsupported", "failed", "no truth"
CATEGORIES = (RIGHT, WRONG_DECISION, WRONG_ROUTE, UNSUPPORTED, FAILED, NO_TRUTH)
"""How an input can end; exactly one applies. The last one: a verdict, and no label to compare."""

RIGHTLY, WRONGLY, UNDECIDED = "rightly", "wrongly", "undecided"
"""Whether a refusal is justified: no supported region in view, one in view, or not known."""

POINTING = ("hit", "chance", "cell_hit", "cell_chance")
"""What is known of where a map points; see :func:`points_at`."""

_LEAST = 1e-7
"""Distance from 0 and 1 at which a probability's logit is cut off."""


def specialists(table: pd.DataFrame) -> tuple[str, ...]:
    """The regions, then ``all`` where the table tells what a specialist for all regions says."""
    return (*REGIONS, ANY_REGION) if f"fracture_{ANY_REGION}" in table else REGIONS


def columns(table: pd.DataFrame, name: str, names: Sequence[str] = REGIONS) -> Numbers:
    """(N, R) of the columns ``name_REGION`` in the order of ``REGIONS``, or of other names."""
    values: Numbers = table[[f"{name}_{region}" for region in names]].to_numpy(np.float64)
    return values


def fired(table: pd.DataFrame, column: str = "fired") -> Flags:
    """(N, R) bool: which regions fired; in the column ``fired_alone`` by the pixels alone."""
    sets = [set(text.split(";")) for text in table[column]]
    rows = [[region in names for region in REGIONS] for names in sets]
    return np.array(rows, bool).reshape(-1, len(REGIONS))


def routed(table: pd.DataFrame) -> Flags:
    """(N,) rows that a region stage could judge."""
    judged: Flags = np.any(np.isfinite(columns(table, "p")), axis=1)
    return judged


def certain(table: pd.DataFrame) -> Flags:
    """(N, S) whether a picture is certainly a case of each of :func:`specialists`.

    The region is in view for certain; of ``all``: no region stage stands before it.
    """
    seen = columns(table, "view") == 1
    return seen if specialists(table) == REGIONS else np.column_stack([seen, ~routed(table)])


def possible(table: pd.DataFrame) -> Flags:
    """(N, S) whether a picture may be a case of each of :func:`specialists`.

    The region is not certainly out of view; of ``all``: not every region is, or no region stage
    stands before it.
    """
    seen: Flags = columns(table, "view") != 0
    if specialists(table) == REGIONS:
        return seen
    return np.column_stack([seen, seen.any(1) | ~routed(table)])


def verdicts(table: pd.DataFrame) -> NDArray[np.str_]:
    """(N, S) str: the verdict of each of :func:`specialists` that looked, empty for the others."""
    names = [f"verdict_{name}" for name in specialists(table)]
    shown: NDArray[np.str_] = table[names].to_numpy(str)
    return shown


def logit(probabilities: Numbers) -> Numbers:
    """Log odds, finite also for 0 and 1."""
    p = np.clip(probabilities, _LEAST, 1 - _LEAST)
    odds: Numbers = np.log(p / (1 - p))
    return odds


def add_truth(table: pd.DataFrame) -> pd.DataFrame:
    """The predictions with what follows from each row, so that a reader can recompute figures.

    Returns:
        The table with ``category`` and ``refusal`` (words above); ``called``: whether any
        specialist that looked says positive, ``uncertain``: whether none does and one doubts;
        ``in_view_probability``, ``in_view_call`` and ``in_view_margin``: highest probability,
        any call and highest log odds above the threshold among the specialists of which the
        picture is a :func:`certain` case; and :func:`pointing`.
    """
    table = table.assign(category=categories(table), refusal=refusals(table))
    said = verdicts(table)
    spoken = (said != "").any(1)
    positive = (said == Verdict.POSITIVE.value).any(1)
    doubted = (said == Verdict.UNCERTAIN.value).any(1) & ~positive
    names = specialists(table)
    p, threshold = columns(table, "fracture", names), columns(table, "threshold", names)
    known = certain(table) & ~np.isnan(p)
    margin = logit(p) - logit(threshold)
    return table.assign(
        called=np.where(spoken, positive, np.nan),
        uncertain=np.where(spoken, doubted, np.nan),
        in_view_probability=_highest(p, known),
        in_view_call=_highest((p >= threshold).astype(np.float64), known),
        in_view_margin=_highest(margin, known),
        **pointing(table),
    )


def _highest(values: Numbers, known: Flags) -> Numbers:
    """(N,) largest of the known values of each row; NaN without one."""
    best = np.where(known, values, -np.inf).max(1)
    return np.where(known.any(1), best, np.nan)


def categories(table: pd.DataFrame) -> list[str]:
    """How each row ends, one of :data:`CATEGORIES`.

    A verdict is by the wrong route when the picture is a :func:`possible` case of none of the
    specialists that spoke; a region of which nothing is known may be in view. Among the rest the
    decision is right when any specialist says positive exactly where the label does.
    """
    judged = verdicts(table) != ""
    astray = ~(judged & possible(table)).any(1)
    called = (verdicts(table) == Verdict.POSITIVE.value).any(1)
    label = table["label"].to_numpy(np.float64)
    status = table["status"].to_numpy(str)
    ends: list[str] = np.select(
        [status == FAILED, status == UNSUPPORTED, astray, np.isnan(label), called == (label == 1)],
        [FAILED, UNSUPPORTED, WRONG_ROUTE, NO_TRUTH, RIGHT],
        WRONG_DECISION,
    ).tolist()
    return ends


def refusals(table: pd.DataFrame) -> list[str]:
    """For each unsupported row whether that was right; empty for the others."""
    view = columns(table, "view")
    worth = np.select([(view == 1).any(1), (view == 0).all(1)], [WRONGLY, RIGHTLY], UNDECIDED)
    shown: list[str] = np.where(table["status"] == UNSUPPORTED, worth, "").tolist()
    return shown


# ------------------------------------------------------------------------------ fracture boxes


def read_boxes(text: str) -> Numbers:
    """(B, 4) corners x0, y0, x1, y1 as fractions of the picture."""
    return np.array([[float(x) for x in part.split()] for part in text.split(";")])


def grown(boxes: Numbers, x: float, y: float) -> Numbers:
    """The boxes with ``x`` and ``y`` more on each side, within the picture.

    A cell touches a box exactly when its centre lies in the box grown by half a cell.
    """
    larger: Numbers = np.clip(boxes + np.array([-x, -y, x, y]), 0.0, 1.0)
    return larger


def covered_share(boxes: Numbers) -> float:
    """Share of the picture inside any box: what a point set at random would hit.

    Args:
        boxes: (B, 4) corners as fractions.
    """
    xs, ys = np.unique(boxes[:, 0::2]), np.unique(boxes[:, 1::2])
    x, y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    within = _inside(boxes, x[None, :, None], y[:, None, None]).any(-1)
    return float((within * np.diff(xs) * np.diff(ys)[:, None]).sum())


def inside_any(boxes: Sequence[Numbers], x: Numbers, y: Numbers) -> Flags:
    """(N,) whether point i lies in one of the boxes i, edges included, without tolerance."""
    hits = [bool(_inside(b, np.array([i]), j).any()) for b, i, j in zip(boxes, x, y, strict=True)]
    return np.array(hits, bool)


def _inside(boxes: Numbers, x: Numbers, y: Numbers) -> Flags:
    x0, y0, x1, y1 = boxes.T
    found: Flags = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    return found


def marked(table: pd.DataFrame) -> Flags:
    """(N,) fractured rows whose fractures are marked."""
    rows: Flags = ((table["label"] == 1) & (table["boxes"] != "")).to_numpy(bool)
    return rows


def points_at(table: pd.DataFrame, region: str) -> dict[str, Numbers]:
    """Where the map of a region's specialist peaks, for rows that have boxes and a map.

    Returns:
        (N,) each: ``hit`` 1 where the centre of the highest cell lies in a box, ``chance`` the
        share of the picture inside a box; ``cell_hit`` 1 where any part of that cell does, and
        ``cell_chance`` the share of the picture where the centre of such a cell may lie.
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
    """:func:`points_at` for the surest specialist of which the picture is a :func:`certain` case.

    Returns:
        Columns ``pointing_region`` and ``pointing_hit`` to ``pointing_cell_chance``; empty and
        NaN for rows without a marked fracture or without such a specialist.
    """
    names = specialists(table)
    p = columns(table, "fracture", names)
    known = certain(table) & ~np.isnan(columns(table, "peak_x", names))
    rows = marked(table) & known.any(1)
    best = np.array(names)[np.where(known, p, -1.0).argmax(1)]
    found: dict[str, Any] = {"pointing_region": np.where(rows, best, "").tolist()}
    for name in POINTING:
        found[f"pointing_{name}"] = np.full(len(table), np.nan)
    for region in names:
        chosen = rows & (best == region)
        for name, values in points_at(table[chosen], region).items():
            found[f"pointing_{name}"][chosen] = values
    return found
