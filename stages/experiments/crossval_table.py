"""Comparison of recipes: each cross-validation against the first, on the same pictures."""

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

from ..settings import differences
from ..statistics.metrics import auc, auc_estimate, bootstrap
from ..training.assessment import PREDICTIONS
from ..training.run import RESULT
from .cross_validation import figures_of, fracture_summary, ranking, subsets

DISPLAYED = ("any region", *(f"{region} in view" for region in REGIONS))


def side_by_side(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per cross-validation: changed settings, AUCs, and differences from the first.

    A difference uses only pictures that both have out of fold; its interval resamples the same
    groups for both (paired bootstrap). A specialist is compared with a region stage on its own
    region, using the auxiliary output. A cross-validation that left acquisitions out also has
    ``left_out``: name and figures of each, and those of the baseline on the same pictures
    (``home``: the baseline was trained on other pictures of that acquisition).

    Args:
        folders: Folders of cross-validations; the first is the baseline.

    Raises:
        ConfigError: A cross-validation is missing, has no finished fold, or has no fracture output.
    """
    loaded = [_load(folder) for folder in folders]
    first, base = loaded[0]
    rows = []
    for folder, (summary, table) in zip(folders, loaded, strict=True):
        same = summary["stage"] == first["stage"]
        displayed = DISPLAYED if same else (f"{summary['config']['region']} in view",)
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
                    if name in displayed and len(part)
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
            f"{folder}: no finished cross-validation: {error}", "run `fxpipe crossval`"
        ) from error


def _by(summary: Mapping[str, Any]) -> str:
    """Criterion of the split; older results are always by group."""
    return str(summary.get("by", "group"))


def _folds(summary: Mapping[str, Any]) -> str:
    """Number of finished folds, and the acquisitions that they left out."""
    count = f"{len(summary['finished'])} of {summary['folds']}"
    if _by(summary) == "group":
        return count
    return f"{count}: {', '.join(row['name'] for row in summary['by_fold'])}"


def _left_out(
    summary: Mapping[str, Any], table: pd.DataFrame, base: pd.DataFrame, has_home: bool
) -> Iterator[dict[str, Any]]:
    """Each acquisition that was left out, with the baseline on the shared pictures."""
    if _by(summary) == "group":
        return
    for fold in summary["by_fold"]:
        rows = table[table["fold"] == fold["fold"]]
        home: dict[str, Any] = {}
        if has_home:
            rows = rows[rows["path"].isin(base["path"])]
            shared = base[base["path"].isin(rows["path"])]
            home = (figures_of if summary["stage"] == "region" else fracture_summary)(shared)
        yield {
            "name": fold["name"],
            "pictures": len(rows),
            "figures": _displayed(figures_of(rows)),
            "home": _displayed(home),
        }


def _displayed(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Estimates by name: the region accuracy, and the AUCs of :data:`DISPLAYED`."""
    return {
        name: part.get("auc", part)
        for name, part in figures.items()
        if "auc" not in part or name in DISPLAYED
    }


def _specialist(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Stage and trainable blocks of a specialist that is compared with a region stage."""
    cut = summary["config"]["train"]["trainable_from"]
    return {"stage": summary["stage"], "train.trainable_from": cut}


def _ranking(table: pd.DataFrame) -> str:
    score = ranking(table)
    if score is None:
        raise ConfigError("a cross-validation has no fracture output: nothing to compare")
    return score


def _changes(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, by dotted name, that differ from the baseline's."""
    changed = differences(base, other)
    return {name: value for name, _, value in changed if not name.startswith("data.")}


def _compared(
    both: pd.DataFrame, part: pd.DataFrame, score: str, base_score: str, is_base: bool
) -> dict[str, Any]:
    rows = both.loc[part.index]
    labels = rows["label"].to_numpy(np.float32)
    groups = list(rows["group"])
    # The merge added a suffix to the columns that both tables have.
    scores = rows[score].to_numpy()
    suffixed = f"{base_score}_base"
    base_scores = rows[suffixed if suffixed in rows else base_score].to_numpy()

    def gain(chosen: Any) -> float | None:
        new, old = (auc(labels[chosen], values[chosen]) for values in (scores, base_scores))
        return None if new is None or old is None else new - old

    difference = Estimate(value=None, note="the baseline itself")
    if not is_base:
        difference = bootstrap(gain, groups)
    return {
        "pictures": len(rows),
        "positives": int(labels.sum()),
        "auc": auc_estimate(labels, scores, groups).model_dump(),
        "difference": difference.model_dump(),
    }
