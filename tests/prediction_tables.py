"""Builders of prediction tables, small enough to calculate their figures by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
from tables import sample

from pipeline.domain import ANY_REGION, REGIONS
from stages.evaluation.predictions import NUMBERS, SPECIALIST_COLUMNS, TEXTS
from stages.evaluation.truth import add_truth

ROUTE, THRESHOLD, DOUBT = 0.5, 0.4, 0.3


def row(
    regions="hand", label=0, fractures=None, fired=None, status=None, twin=None, twin_label=None,
    **changes,
) -> dict[str, object]:  # fmt: skip
    """One row: by default the regions in view fire and no region is fractured."""
    view = sample("x", regions=regions).region_vector()
    fired = [r for r, v in zip(REGIONS, view, strict=True) if v == 1] if fired is None else fired
    status = status or ("ok" if fired else "unsupported")
    values: dict[str, object] = dict.fromkeys(TEXTS, "") | dict.fromkeys(NUMBERS, np.nan)
    values |= {
        "path": "x.png", "split": "test", "group": "g", "origin": "made", "regions": regions,
        "label": np.nan if label is None else label, "status": status, "fired": ";".join(fired),
        "width_px": 100, "height_px": 100, "twin": "", "labelled_twin": "",
        "twin_likeness": np.nan, "labelled_twin_likeness": 0.9, "twin_label": np.nan,
    }  # fmt: skip
    twin_view = np.full(3, np.nan) if twin is None else sample("x", regions=twin).region_vector()
    for region, seen, known in zip(REGIONS, view, twin_view, strict=True):
        values[f"view_{region}"] = float(seen)
        values[f"twin_view_{region}"] = float(known)
        if status == "failed":
            continue
        p = (fractures or {}).get(region, 0.1)
        values[f"p_{region}"] = 0.9 if region in fired else 0.1
        values[f"route_threshold_{region}"] = ROUTE
        values[f"fracture_{region}"] = p
        values[f"threshold_{region}"], values[f"doubt_below_{region}"] = THRESHOLD, DOUBT
        values[f"peak_x_{region}"], values[f"peak_y_{region}"] = 0.5, 0.5
        values[f"cell_x_{region}"] = values[f"cell_y_{region}"] = 0.1
        if status == "ok" and region in fired:
            values[f"verdict_{region}"] = (
                "positive" if p >= THRESHOLD else "uncertain" if p >= DOUBT else "negative"
            )
    if twin_label is not None:
        values["twin_label"] = twin_label
    return values | changes


def table(*rows: dict[str, object]) -> pd.DataFrame:
    """The table of some rows, with a path for each and a separate group where none is set."""
    named = [{**r, "path": f"{i}.png"} for i, r in enumerate(rows)]
    grouped = [{**r, "group": f"g{i}"} if r["group"] == "g" else r for i, r in enumerate(named)]
    return add_truth(pd.DataFrame(grouped))


def row_for_all(regions="unknown", label=0, p=0.1, router=False, **changes) -> dict[str, object]:
    """One row of a specialist for all regions, by default without a region stage."""
    failed = changes.get("status") == "failed"
    fired = [] if not router else changes.pop("fired", None)
    one = row(regions, label, dict.fromkeys(REGIONS, p), fired, **{"status": "ok", **changes})
    if not router:
        one |= dict.fromkeys(
            (f"{name}_{r}" for r in REGIONS for name in ("p", "route_threshold")), np.nan
        )
    predicted = {f"{name}_{ANY_REGION}": one[f"{name}_{REGIONS[0]}"] for name in SPECIALIST_COLUMNS}
    verdict = "positive" if p >= THRESHOLD else "uncertain" if p >= DOUBT else "negative"
    if failed or one["status"] != "ok":
        verdict = ""
    without_verdicts = {f"verdict_{region}": "" for region in REGIONS}
    return one | predicted | without_verdicts | {f"verdict_{ANY_REGION}": verdict}
