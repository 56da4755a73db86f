"""Recipes side by side: what each cross-validation says against the first, on the same pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bundle import Estimate
from pipeline.domain import REGIONS
from pipeline.errors import ConfigError

from .assess import PREDICTIONS
from .config import differences
from .crossval import figures_of, fracture_summary, ranking, subsets
from .metrics import auc, auc_estimate, bootstrap
from .recipe import RESULT

SHOWN = ("any region", *(f"{region} in view" for region in REGIONS))


def side_by_side(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a cross-validation: what it changed, its AUCs, and their difference from the first.

    Only pictures that both have out of fold enter a difference; its interval comes from
    resampling groups, the same ones for both, so that what is hard for both cancels out. A
    specialist beside a region stage is compared, on its own region, with the auxiliary output.
    A cross-validation that left acquisitions out also has ``left_out``: of each its name and
    figures, and those of the baseline on the same pictures (``home``: where the baseline knew
    other pictures of that acquisition).

    Args:
        folders: Of cross-validations; the first is the baseline.

    Raises:
        ConfigError: One of them is not there, not finished in any fold, or only routes.
    """
    loaded = [_load(folder) for folder in folders]
    first, base = loaded[0]
    rows = []
    for folder, (summary, table) in zip(folders, loaded, strict=True):
        same = summary["stage"] == first["stage"]
        shown = SHOWN if same else (f"{summary['config']['region']} in view",)
        both = base.merge(table, on="path", suffixes=("_base", ""), validate="one_to_one")
        changed = dict(_changes(first["config"], summary["config"])) if same else {}
        if _by(summary) != _by(first):
            changed["by"] = _by(summary)
        rows.append(
            {
                "name": folder.name,
                "stage": summary["stage"],
                "folds": _folds(summary),
                "changed": changed if same else _specialist(summary) | changed,
                "left_out": list(_left_out(summary, table, base, _by(first) == "group")),
                "figures": {
                    name: _compared(both, part, _ranking(table), _ranking(base), table is base)
                    for name, part in subsets(both).items()
                    if name in shown and len(part)
                },
            }
        )
    return rows


def _load(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    try:
        summary: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return summary, pd.read_csv(folder / PREDICTIONS)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{folder}: no finished cross-validation: {error}", "make it with `fxpipe crossval`"
        ) from error


def _by(summary: Mapping[str, Any]) -> str:
    """What told the parts apart; older results know of groups only."""
    return str(summary.get("by", "group"))


def _folds(summary: Mapping[str, Any]) -> str:
    """How many are finished, and the acquisitions that these left out."""
    count = f"{len(summary['finished'])} of {summary['folds']}"
    if _by(summary) == "group":
        return count
    return f"{count}: {', '.join(row['name'] for row in summary['by_fold'])}"


def _left_out(
    summary: Mapping[str, Any], table: pd.DataFrame, base: pd.DataFrame, has_home: bool
) -> Iterator[dict[str, Any]]:
    """Each acquisition that was left out, beside the baseline on the pictures of both."""
    if _by(summary) == "group":
        return
    for fold in summary["by_fold"]:
        mine = table[table["fold"] == fold["fold"]]
        home: dict[str, Any] = {}
        if has_home:
            mine = mine[mine["path"].isin(base["path"])]
            same = base[base["path"].isin(mine["path"])]
            home = (figures_of if summary["stage"] == "region" else fracture_summary)(same)
        yield {
            "name": fold["name"],
            "pictures": len(mine),
            "figures": _shown(figures_of(mine)),
            "home": _shown(home),
        }


def _shown(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Estimates by name: the accuracy of the region, and the AUCs that :data:`SHOWN` names."""
    return {
        name: part.get("auc", part)
        for name, part in figures.items()
        if "auc" not in part or name in SHOWN
    }


def _specialist(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Of a specialist beside a region stage: that it is one, and what of it learns."""
    cut = summary["config"]["train"]["trainable_from"]
    return {"stage": summary["stage"], "train.trainable_from": cut}


def _ranking(table: pd.DataFrame) -> str:
    score = ranking(table)
    if score is None:
        raise ConfigError("a cross-validation has no fracture output, wanted one to compare")
    return score


def _changes(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, by dotted name, that differ from the baseline's."""
    found = differences(base, other)
    return {name: value for name, _, value in found if not name.startswith("data.")}


def _compared(
    both: pd.DataFrame, part: pd.DataFrame, score: str, base_score: str, is_base: bool
) -> dict[str, Any]:
    rows = both.loc[part.index]
    labels = rows["label"].to_numpy(np.float32)
    groups = list(rows["group"])
    # The columns that both tables have got a suffix in the merge; others are as they were.
    mine = rows[score].to_numpy()
    old = rows[f"{base_score}_base" if f"{base_score}_base" in rows else base_score].to_numpy()

    def gain(chosen: Any) -> float | None:
        new, was = (auc(labels[chosen], values[chosen]) for values in (mine, old))
        return None if new is None or was is None else new - was

    difference = Estimate(value=None, note="the baseline itself")
    if not is_base:
        difference = bootstrap(gain, groups)
    return {
        "pictures": len(rows),
        "positives": int(labels.sum()),
        "auc": auc_estimate(labels, mine, groups).model_dump(),
        "difference": difference.model_dump(),
    }
