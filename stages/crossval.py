"""Grouped cross-validation: K ordinary runs, and what they say of pictures they never saw.

The pictures are divided into K parts by group, stratified. In fold k part k tests, the next part
validates (it chooses the epoch, the calibration and the thresholds), and the others train; so no
figure comes from a picture that had any influence on the network that read it. The table's own
test split stays out: what is chosen by cross-validation can still be tested on it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bundle import Kind, write_json
from pipeline.domain import REGIONS
from pipeline.errors import ConfigError, UsageError
from pipeline.progress import Progress

from .assess import PREDICTIONS
from .calibrate import probabilities
from .checkpoint import CONFIG
from .config import FractureConfig, RegionConfig
from .data.index import NONE, UNKNOWN, Index, Split, assign_parts
from .metrics import auc, auc_estimate, share
from .recipe import RESULT, train_fracture, train_region
from .spec import TARGETS

log = logging.getLogger(__name__)

Train = Callable[[Path, Index, bool, Progress], None]


def fold_tables(index: Index, folds: int, seed: int, splits: Sequence[Split]) -> list[Index]:
    """The table of each fold: the same rows with other splits.

    Args:
        index: Checked table.
        folds: Number of parts, at least 3.
        seed: Same seed and rows, same parts.
        splits: Splits of the table whose pictures take part; the others are left out.

    Raises:
        ConfigError: No picture is in these splits.
    """
    pool = [
        sample if sample.split in splits else replace(sample, split="excluded")
        for sample in index.samples
    ]
    if all(sample.split == "excluded" for sample in pool):
        raise ConfigError(f"{index.source}: no picture in {' or '.join(splits)}")
    parts = assign_parts(pool, seed, folds)
    tables = []
    for fold in range(folds):
        names: dict[int | None, Split] = {None: "excluded", fold: "test", (fold + 1) % folds: "val"}
        samples = tuple(
            replace(sample, split=names.get(part, "train"))
            for sample, part in zip(pool, parts, strict=True)
        )
        name = f"{index.digest} {folds} {seed} {' '.join(splits)} {fold}"
        tables.append(Index(index.source, hashlib.sha256(name.encode()).hexdigest(), samples))
    return tables


def crossval_region(
    folder: Path, tables: Sequence[Index], config: RegionConfig, only: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Cross-validate the region stage with its auxiliary fracture output.

    Args:
        folder: Gets ``fold-1`` …, ``predictions.csv`` and ``result.json``; finished folds in it
            are kept, an unfinished one goes on after its last epoch.
        tables: One a fold.
        config: Settings of every fold.
        only: Numbers, from 1, of the folds to train now.
        progress: Advanced once a batch.

    Returns:
        Pooled figures with intervals over all folds finished so far, and figures by fold.

    Raises:
        UsageError: The folder holds folds of another table or with other settings.
    """

    def train(run: Path, table: Index, resume: bool, progress: Progress) -> None:
        train_region(run, table, config, resume, progress)

    return _crossval(folder, tables, train, only, progress)


def crossval_fracture(
    folder: Path, tables: Sequence[Index], config: FractureConfig, only: Sequence[int],
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Cross-validate a specialist; each fold starts from the region network of the same fold.

    An independent one starts every fold from its own initial weights.

    Args:
        folder: As for :func:`crossval_region`.
        tables: The tables with which the region stage was cross-validated.
        config: Settings; ``region_run`` is the folder of the region's cross-validation.
        only: As for :func:`crossval_region`.
        progress: Advanced once a batch.

    Raises:
        ConfigError: The region stage has not been cross-validated on the same folds.
        UsageError: The folder holds folds of another table or with other settings.
    """
    parents = {
        table.digest: config.region_run if config.independent else fold_folder(config.region_run, n)
        for n, table in enumerate(tables, 1)
    }
    for number, table in enumerate(tables, 1):
        if number in only and not config.independent:
            _check_parent(parents[table.digest], table)

    def train(run: Path, table: Index, resume: bool, progress: Progress) -> None:
        mine = config.model_copy(update={"region_run": parents[table.digest]})
        train_fracture(run, table, mine, resume, progress)

    return _crossval(folder, tables, train, only, progress)


def fold_folder(folder: Path, number: int) -> Path:
    """The run of a fold, numbered from 1."""
    return folder / f"fold-{number}"


def _check_parent(run: Path, table: Index) -> None:
    hint = "run `fxpipe crossval region` first, with the same --folds and --seed"
    if not (run / RESULT).is_file():
        raise ConfigError(f"{run}: no finished region run of this fold", hint)
    described = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    if described["index_digest"] != table.digest:
        raise ConfigError(
            f"{run}: was trained on other folds: it may have seen what would be tested", hint
        )


def _crossval(
    folder: Path, tables: Sequence[Index], train: Train, only: Sequence[int], progress: Progress
) -> dict[str, Any]:
    for number, table in enumerate(tables, 1):
        run = fold_folder(folder, number)
        if number not in only:
            continue
        if (run / RESULT).is_file():
            described = json.loads((run / CONFIG).read_text(encoding="utf-8"))
            if described["index_digest"] != table.digest:
                raise UsageError(f"{run}: is a fold of another table; name another --output")
            log.info("%s: finished before", run)
            continue
        log.info("%s: fold %d of %d", run, number, len(tables))
        train(run, table, (run / CONFIG).is_file(), progress)
    return summarise(folder, len(tables))


def summarise(folder: Path, folds: int) -> dict[str, Any]:
    """Pool the out-of-fold predictions of the finished folds; written beside them.

    Raises:
        ConfigError: No fold is finished.
    """
    frames, by_fold = [], []
    described: dict[str, Any] = {}
    for number in range(1, folds + 1):
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
        for k, name in enumerate(described["labels"]):
            frame[f"probability_{name}"] = calibrated[:, k]
        frames.append(frame)
        by_fold.append({"fold": number, "best_epoch": result["best_epoch"], **_plain(frame)})
    if not frames:
        raise ConfigError(f"{folder}: no finished fold")
    pooled = pd.concat(frames)
    pooled.to_csv(folder / PREDICTIONS, index=False, lineterminator="\n")
    kind = Kind(described["kind"])
    summary = {
        "stage": described["stage"],
        "folds": folds,
        "finished": [row["fold"] for row in by_fold],
        "config": described["config"],
        "pictures": len(pooled),
        "pooled": region_summary(pooled) if kind is Kind.REGION else fracture_summary(pooled),
        "by_fold": by_fold,
    }
    write_json(folder / RESULT, summary)
    return summary


def subsets(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Labelled rows by the region that they show: alone, or with others."""
    known = table[table["label"].notna()]
    singles = {region: known[known["regions"] == region] for region in REGIONS}
    views = {
        region: known[[region in str(names).split(";") for names in known["regions"]]]
        for region in REGIONS
    }
    return {
        "any region": known[~known["regions"].isin((NONE, UNKNOWN))],
        **{f"{region} alone": rows for region, rows in singles.items()},
        **{f"{region} in view": rows for region, rows in views.items()},
    }


def ranking(table: pd.DataFrame) -> str | None:
    """The column that ranks: the calibrated probability, which is comparable between folds.

    An auxiliary output is not calibrated: its logits rank. None for a router without one.
    """
    names = [f"{kind}_{target}" for kind in ("probability", "logit") for target in TARGETS]
    return next((name for name in names if name in table.columns), None)


def region_summary(table: pd.DataFrame) -> dict[str, Any]:
    """Region accuracy over single-region pictures, and the auxiliary fracture output's AUC.

    The auxiliary output, if there is one, is not calibrated: its logits of different folds are
    compared as they are, which costs a little.
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
    """AUC of one fold by region in view; None where a class is missing."""
    score = ranking(table)
    if score is None:
        return {}
    return {
        name: auc(rows["label"].to_numpy(np.float32), rows[score].to_numpy())
        for name, rows in subsets(table).items()
        if len(rows)
    }
