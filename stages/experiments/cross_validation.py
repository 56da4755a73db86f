"""Cross-validation: K ordinary runs, and their out-of-fold predictions.

The pictures are split by group or by acquisition (:mod:`.folds`). In each fold one part is the test
split, another the validation split (it determines epoch, calibration and thresholds), and the
others are for training; so every figure comes from pictures that had no influence on the network.
The table's own test split is not used: choices made by cross-validation can still be tested on it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bundle import write_json
from pipeline.domain import REGIONS
from pipeline.errors import ConfigError, UsageError
from pipeline.progress import Progress

from ..network.checkpoint import CONFIG
from ..samples import Index
from ..settings import FractureConfig, RegionConfig
from ..stage_spec import TARGETS
from ..statistics.calibration import probabilities
from ..statistics.metrics import auc, auc_estimate, share
from ..training.assessment import PREDICTIONS
from ..training.run import RESULT, train_fracture, train_region
from .folds import By, Folds

log = logging.getLogger(__name__)

Train = Callable[[Path, Index, bool, Progress], None]


def crossval_region(
    folder: Path, folds: Folds, config: RegionConfig, only: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Cross-validate the region stage with its auxiliary fracture output.

    Args:
        folder: Gets ``fold-1`` …, ``predictions.csv`` and ``result.json``; finished folds are
            kept, an unfinished one resumes after its last epoch.
        folds: Tables of the folds.
        config: Settings of every fold.
        only: Numbers, from 1, of the folds to train now.
        progress: Advanced once per batch.

    Returns:
        Pooled figures with intervals over all folds finished so far, and figures by fold.

    Raises:
        UsageError: The folder holds folds of another table or with other settings.
    """

    def train(run: Path, table: Index, resume: bool, progress: Progress) -> None:
        train_region(run, table, config, resume, progress)

    return _crossval(folder, folds, train, only, progress)


def crossval_fracture(
    folder: Path, folds: Folds, config: FractureConfig, only: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Cross-validate a specialist; each fold starts from the region network of the same fold.

    An independent specialist starts every fold from its own initial weights.

    Args:
        folder: As for :func:`crossval_region`.
        folds: The folds of the region stage's cross-validation.
        config: Settings; ``region_run`` is the folder of the region's cross-validation.
        only: As for :func:`crossval_region`.
        progress: Advanced once per batch.

    Raises:
        ConfigError: The region stage has not been cross-validated on the same folds.
        UsageError: The folder holds folds of another table or with other settings.
    """
    parents = {
        table.digest: config.region_run if config.independent else fold_folder(config.region_run, n)
        for n, table in enumerate(folds.tables, 1)
    }
    for number, table in enumerate(folds.tables, 1):
        if number in only and not config.independent:
            _check_parent(parents[table.digest], table)

    def train(run: Path, table: Index, resume: bool, progress: Progress) -> None:
        fold_config = config.model_copy(update={"region_run": parents[table.digest]})
        train_fracture(run, table, fold_config, resume, progress)

    return _crossval(folder, folds, train, only, progress)


def fold_folder(folder: Path, number: int) -> Path:
    """Run folder of a fold; folds are numbered from 1."""
    return folder / f"fold-{number}"


def _check_parent(run: Path, table: Index) -> None:
    hint = "run `fxpipe crossval region` first, with the same --by, --folds and --seed"
    if not (run / RESULT).is_file():
        raise ConfigError(f"{run}: no finished region run of this fold", hint)
    described = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    if described["index_digest"] != table.digest:
        raise ConfigError(
            f"{run}: was trained on other folds and may have seen the test pictures", hint
        )


def _crossval(
    folder: Path, folds: Folds, train: Train, only: Sequence[int], progress: Progress
) -> dict[str, Any]:
    if folds.note:
        log.info("%s", folds.note)
    for number, table in enumerate(folds.tables, 1):
        run = fold_folder(folder, number)
        if number not in only:
            continue
        if (run / RESULT).is_file():
            described = json.loads((run / CONFIG).read_text(encoding="utf-8"))
            if described["index_digest"] != table.digest:
                raise UsageError(f"{run}: is a fold of another table; choose another --output")
            log.info("%s: finished before", run)
            continue
        log.info("%s: fold %d of %d", run, number, len(folds))
        train(run, table, (run / CONFIG).is_file(), progress)
    return summarise(folder, folds.names, folds.by, folds.note)


def summarise(
    folder: Path, names: Sequence[str], by: By = "group", note: str = ""
) -> dict[str, Any]:
    """Pool the out-of-fold predictions of the finished folds, and write them to the folder.

    Args:
        folder: Folder of the folds.
        names: Names of all folds, finished or not.
        by: Criterion of the split; each acquisition gets separate figures with intervals.
        note: How groups were handled.

    Raises:
        ConfigError: No fold is finished.
    """
    frames, by_fold = [], []
    described: dict[str, Any] = {}
    for number, name in enumerate(names, 1):
        run = fold_folder(folder, number)
        if not (run / RESULT).is_file():
            continue
        described = json.loads((run / CONFIG).read_text(encoding="utf-8"))
        result = json.loads((run / RESULT).read_text(encoding="utf-8"))
        frame = pd.read_csv(run / PREDICTIONS)
        frame = frame[frame["split"] == "test"].assign(fold=number)
        columns = [f"logit_{name}" for name in described["labels"]]
        calibrated = probabilities(
            frame[columns].to_numpy(np.float32),
            np.array(result["temperature"], np.float32),
            np.array(result["bias"], np.float32),
        )
        for k, label in enumerate(described["labels"]):
            frame[f"probability_{label}"] = calibrated[:, k]
        frames.append(frame)
        fold = {"fold": number, "name": name, "best_epoch": result["best_epoch"], **_plain(frame)}
        if by == "acquisition":
            fold |= {"pictures": len(frame), "figures": figures_of(frame)}
        by_fold.append(fold)
    if not frames:
        raise ConfigError(f"{folder}: no finished fold")
    pooled = pd.concat(frames)
    pooled.to_csv(folder / PREDICTIONS, index=False, lineterminator="\n")
    summary = {
        "stage": described["stage"],
        "folds": len(names),
        "by": by,
        "names": list(names),
        "note": note,
        "finished": [row["fold"] for row in by_fold],
        "config": described["config"],
        "pictures": len(pooled),
        "pooled": figures_of(pooled),
        "by_fold": by_fold,
    }
    write_json(folder / RESULT, summary)
    return summary


def subsets(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Labelled rows by region in view: alone, or with others."""
    known = table[table["label"].notna()]
    singles = {region: known[known["regions"] == region] for region in REGIONS}
    sets = [{*str(names).split(";")} for names in known["regions"]]
    views = {region: known[[region in names for names in sets]] for region in REGIONS}
    return {
        "any region": known[[not names.isdisjoint(REGIONS) for names in sets]],
        **{f"{region} alone": rows for region, rows in singles.items()},
        **{f"{region} in view": rows for region, rows in views.items()},
    }


def ranking(table: pd.DataFrame) -> str | None:
    """The score column: the calibrated probability, which is comparable between folds.

    An auxiliary output is not calibrated: its logits are used. None for a router without one.
    """
    names = [f"{kind}_{target}" for kind in ("probability", "logit") for target in TARGETS]
    return next((name for name in names if name in table.columns), None)


def figures_of(table: pd.DataFrame) -> dict[str, Any]:
    """:func:`region_summary` for a router, :func:`fracture_summary` for a specialist."""
    routed = f"probability_{REGIONS[0]}" in table
    return region_summary(table) if routed else fracture_summary(table)


def region_summary(table: pd.DataFrame) -> dict[str, Any]:
    """Region accuracy over single-region pictures, and the auxiliary fracture output's AUC.

    The auxiliary output, if there is one, is not calibrated: comparing raw logits of different
    folds lowers its AUC slightly.
    """
    single = table[table["regions"].isin(REGIONS)]
    names = single[[f"probability_{region}" for region in REGIONS]].to_numpy().argmax(1)
    right = np.array(REGIONS)[names] == single["regions"].to_numpy()
    return {
        "region accuracy": share(right, list(single["group"])).model_dump(),
        **fracture_summary(table),
    }


def fracture_summary(table: pd.DataFrame) -> dict[str, Any]:
    """AUC of the fracture output by region in view, with intervals over groups."""
    score = ranking(table)
    if score is None:
        return {}
    return {
        name: {
            "pictures": len(rows),
            "positives": int(rows["label"].sum()),
            "auc": auc_estimate(
                rows["label"].to_numpy(np.float32), rows[score].to_numpy(),
                list(rows["group"]),
            ).model_dump(),
        }
        for name, rows in subsets(table).items()
        if len(rows)
    }  # fmt: skip


def _plain(table: pd.DataFrame) -> dict[str, Any]:
    """AUC of one fold by region in view; None if a class is missing."""
    score = ranking(table)
    if score is None:
        return {}
    return {
        name: auc(rows["label"].to_numpy(np.float32), rows[score].to_numpy())
        for name, rows in subsets(table).items()
        if len(rows)
    }
