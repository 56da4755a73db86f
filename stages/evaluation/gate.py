"""The figures of the density gate beside those of the router. Pure functions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..metrics import auc_estimate, share
from ..resample import Flags, Numbers
from .figures import Figures, Settings
from .truth import columns

WHO = {
    "gate": "by the density gate, whatever the router says",
    "router": "by the router, whatever the gate says",
    "both": "by both",
    "either": "by one of them or both",
}
SCORES = {
    "router": "best region logit",
    "density": "density",
    "both": "both, mean of their ranks",
}
SUPPORTED, UNSUPPORTED = "supported", "unsupported"


def gate_figures(table: pd.DataFrame, settings: Settings) -> Figures | None:
    """Whom gate and router refuse, and how well each tells supported pictures from the others.

    Returns:
        None without a region stage or a density gate in force. ``refused``: of ``supported``
        pictures (a supported region is certainly in view) and ``unsupported`` ones (none is) the
        number of ``pictures``, and by :data:`WHO` ``counts`` and ``shares``. ``far``: of the same
        pictures the ``count`` and ``share`` that the gate lets pass although they are far from the
        training pictures, so that *positive* needs more. ``auc``: of supported against unsupported
        pictures, by :data:`SCORES`.
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
    refuses = _refusals(table, density)
    groups = table["group"].to_numpy(str)
    far = ~refuses["gate"] & (density < table["density_far"].to_numpy(np.float64))
    refused: Figures = {}
    for name, rows in parts.items():
        refused[name] = {
            "pictures": int(rows.sum()),
            "counts": {who: int(calls[rows].sum()) for who, calls in refuses.items()},
            "shares": {
                who: share(calls[rows], groups[rows].tolist()) for who, calls in refuses.items()
            },
        }
    known = parts[SUPPORTED] | parts[UNSUPPORTED]
    labels = parts[SUPPORTED][known].astype(np.float32)
    beside = groups[known].tolist()
    return {
        "refused": refused,
        "far": {
            name: {"count": int(far[rows].sum()), "share": share(far[rows], groups[rows].tolist())}
            for name, rows in parts.items()
        },
        "auc": {
            name: auc_estimate(labels, values.astype(np.float32), beside, settings.seed)
            for name, values in _scores(table[known], density[known]).items()
        },
    }


def _refusals(table: pd.DataFrame, density: Numbers) -> dict[str, Flags]:
    """(N,) each: who refuses a picture, by :data:`WHO`."""
    threshold = table["density_threshold"].to_numpy(np.float64)
    gate: Flags = ~(density >= threshold)
    fires = columns(table, "p") >= columns(table, "route_threshold")
    router: Flags = np.logical_not(np.any(fires, axis=1))
    return {"gate": gate, "router": router, "both": gate & router, "either": gate | router}


def _scores(table: pd.DataFrame, density: Numbers) -> dict[str, Numbers]:
    """(N,) each, larger for what looks more supported, by :data:`SCORES`.

    Logits and similarities have nothing in common but their order, and no weight between them may
    be fitted to the pictures that are evaluated: so ranks among these are averaged.
    """
    logits = np.nan_to_num(columns(table, "logit"), nan=-np.inf).max(1)
    both = (rankdata(logits) + rankdata(density)) / 2
    return {"router": logits, "density": density, "both": both}
