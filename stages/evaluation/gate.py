"""Figures of the density gate, compared with those of the router. Pure functions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..statistics.bootstrap import Flags, Numbers
from ..statistics.metrics import auc_estimate, share
from .figures import Figures, Settings
from .truth import columns

REFUSED_BY = {
    "gate": "by the density gate (regardless of the router)",
    "router": "by the router (regardless of the gate)",
    "both": "by both",
    "either": "by at least one of them",
}
SCORES = {
    "router": "best region logit",
    "density": "density",
    "both": "both, mean of their ranks",
}
SUPPORTED, UNSUPPORTED = "supported", "unsupported"


def gate_figures(table: pd.DataFrame, settings: Settings) -> Figures | None:
    """Refusals by gate and router, and how well each separates supported pictures from others.

    Returns:
        None without a region stage or an active density gate. ``refused``: for ``supported``
        pictures (a supported region is certainly in view) and ``unsupported`` ones (none is) the
        number of ``pictures``, and ``counts`` and ``shares`` by :data:`REFUSED_BY`. ``far``: for
        the same pictures the ``count`` and ``share`` that the gate accepts although they are far
        from the training pictures and need a higher probability for *positive*. ``auc``: of
        supported against unsupported pictures, by :data:`SCORES`.
    """
    if settings.no_gate or settings.no_region_stage:
        return None
    density = table["density"].to_numpy(np.float64)
    view = columns(table, "view")
    judged: Flags = np.isfinite(density)
    parts = {
        SUPPORTED: judged & (view == 1).any(1),
        UNSUPPORTED: judged & (view == 0).all(1),
    }
    refusals = _refusals(table, density)
    groups = table["group"].to_numpy(str)
    far = ~refusals["gate"] & (density < table["density_far"].to_numpy(np.float64))
    refused: Figures = {}
    for name, rows in parts.items():
        refused[name] = {
            "pictures": int(rows.sum()),
            "counts": {by: int(calls[rows].sum()) for by, calls in refusals.items()},
            "shares": {
                by: share(calls[rows], groups[rows].tolist()) for by, calls in refusals.items()
            },
        }
    known = parts[SUPPORTED] | parts[UNSUPPORTED]
    labels = parts[SUPPORTED][known].astype(np.float32)
    known_groups = groups[known].tolist()
    return {
        "refused": refused,
        "far": {
            name: {"count": int(far[rows].sum()), "share": share(far[rows], groups[rows].tolist())}
            for name, rows in parts.items()
        },
        "auc": {
            name: auc_estimate(labels, values.astype(np.float32), known_groups, settings.seed)
            for name, values in _scores(table[known], density[known]).items()
        },
    }


def _refusals(table: pd.DataFrame, density: Numbers) -> dict[str, Flags]:
    """(N,) each: whether a picture is refused, by :data:`REFUSED_BY`."""
    threshold = table["density_threshold"].to_numpy(np.float64)
    gate: Flags = ~(density >= threshold)
    fires = columns(table, "p") >= columns(table, "route_threshold")
    router: Flags = np.logical_not(np.any(fires, axis=1))
    return {"gate": gate, "router": router, "both": gate & router, "either": gate | router}


def _scores(table: pd.DataFrame, density: Numbers) -> dict[str, Numbers]:
    """(N,) each, larger for pictures that look more supported, by :data:`SCORES`.

    Logits and similarities have different scales, and a weight between them must not be fitted
    to the evaluated pictures. So ``both`` averages the ranks.
    """
    logits = np.nan_to_num(columns(table, "logit"), nan=-np.inf).max(1)
    both = (rankdata(logits) + rankdata(density)) / 2
    return {"router": logits, "density": density, "both": both}
