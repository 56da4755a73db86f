"""A painted table for ``fxpipe evaluate``, and its figures calculated with scikit-learn."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles import write_png
from sklearn import metrics
from tables import sample

from pipeline.config import RunConfig
from pipeline.domain import REGIONS
from pipeline.engine import run
from pipeline.runtime.session import load_bundles
from stages.data.index import read_index, write_index


def painted_table(folder: Path) -> Path:
    """Write painted pictures for every kind of answer, one of them truncated; the table's path."""
    random = np.random.default_rng(0)
    samples = []

    def add(
        name: str, split: str, regions: str, label: int | None, painted, fractures, strange=0.1,
        **changes,
    ):  # fmt: skip
        path = write_png(folder / "pictures" / name, painted, fractures, strange)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kind = "" if label is None else "fracture"
        values = {"split": split, "regions": regions, "label": label, "label_kind": kind}
        samples.append(sample(str(path), **values, **{"sha256": digest, **changes}))

    for n in range(36):
        region, label = REGIONS[n % 3], int(random.random() < 0.5)
        cells = {r: float(np.clip(random.normal(0.4 + 0.2 * label, 0.1), 0, 1)) for r in REGIONS}
        changes = {
            "group": f"g{n // 2}" if n < 24 else f"t{n}",
            "flags": "hardware" if n % 5 == 0 else "",
            "boxes": ((0.2, 0.25, 0.6, 0.5),) if label else (),
        }
        painted = {region: 0.7 + 0.005 * n}
        add(f"{n}.png", "test" if n < 24 else "train", region, label, painted, cells, **changes)
    both = ("test", "elbow;hand", 1, {"elbow": 0.8, "hand": 0.9}, {"elbow": 0.46, "hand": 0.7})
    add("both.png", *both, boxes=((0.1, 0.1, 0.2, 0.2),))
    add("doubt.png", "test", "hand", 1, {"hand": 0.9}, {"hand": 0.47})
    add("knee.png", "test", "none", None, {}, {"hand": 0.9})
    add("astray.png", "test", "none", 1, {"shoulder": 0.8}, {"shoulder": 0.9})
    add("refused.png", "test", "hand", 1, {"hand": 0.3}, {"hand": 0.9})
    add("unknown.png", "test", "unknown", None, {"hand": 0.95}, {"hand": 0.2})
    add("foot.png", "test", "none", None, {"hand": 0.95}, {"hand": 0.9}, strange=0.9)
    add("odd.png", "test", "hand", 0, {"hand": 0.94}, {"hand": 0.1}, strange=0.85)
    add("out.png", "excluded", "hand", 0, {"hand": 0.91}, {"hand": 0.2}, flags="truncated")
    broken = folder / "pictures/broken.png"
    whole = (folder / "pictures/both.png").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    samples.append(sample(str(broken), split="test", label=1))
    write_index(samples, folder / "index.csv")
    return folder / "index.csv"


def ece(labels: pd.Series, scores: pd.Series) -> float:
    """Expected calibration error in ten bins, from its definition."""
    bins = np.minimum((scores.to_numpy() * 10).astype(int), 9)
    gaps = [
        abs(scores.to_numpy()[bins == b].mean() - labels.to_numpy()[bins == b].mean())
        * (bins == b).sum()
        for b in set(bins)
    ]
    return sum(gaps) / len(bins)


def recomputed(y: pd.Series, p: pd.Series, calls: pd.Series) -> dict[str, float]:
    """Figures of a stage by scikit-learn.

    Args:
        y: Labels, 0 or 1.
        p: Probabilities.
        calls: 1 where the probability reaches the threshold.
    """
    sensitivity = metrics.recall_score(y, calls)
    specificity = metrics.recall_score(1 - y, 1 - calls)
    return {
        "auc": metrics.roc_auc_score(y, p),
        "average_precision": metrics.average_precision_score(y, p),
        "accuracy": metrics.accuracy_score(y, calls),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, calls),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": metrics.precision_score(y, calls),
        "npv": metrics.precision_score(1 - y, 1 - calls),
        "kappa": metrics.cohen_kappa_score(y, calls),
        "brier": metrics.brier_score_loss(y, p),
        "ece": ece(y, p),
        "ppv_at_0.1": sensitivity * 0.1 / (sensitivity * 0.1 + (1 - specificity) * 0.9),
        "npv_at_0.3": specificity * 0.7 / (specificity * 0.7 + (1 - sensitivity) * 0.3),
    }


def check_figures(part: dict, y: pd.Series, p: pd.Series, calls: pd.Series) -> None:
    """Compare counts and figures of a part of evaluation.json with :func:`recomputed`."""
    assert (part["pairs"], part["positives"]) == (len(y), int(y.sum()))
    assert part["pictures"] == len(set(y.index))
    assert part["positive_pictures"] == len(set(y.index[y == 1]))
    for name, value in recomputed(y, p, calls).items():
        figure = part["network"][name]
        assert figure["value"] == pytest.approx(value, abs=1e-12), name
        if figure["low"] is not None:
            assert figure["low"] - 1e-12 <= value <= figure["high"] + 1e-12


def check_as_run(table: Path, weights: Path, predictions: pd.DataFrame) -> None:
    """Compare the predictions for the test split with the outcomes of ``fxpipe run``."""
    config = RunConfig(device="cpu", batch_size=4)
    paths = [s.path for s in read_index(table).samples if s.split == "test"]
    outcomes = list(run(paths, load_bundles(weights, config), config))
    assert len(outcomes) == len(predictions)
    specialists = [name for name in (*REGIONS, "all") if f"verdict_{name}" in predictions]
    for outcome, (_, row) in zip(outcomes, predictions.iterrows(), strict=True):
        assert str(row["path"]).endswith(outcome.image.path.name)
        assert row["status"] == outcome.status.value
        assert row["error"] == outcome.error or (pd.isna(row["error"]) and outcome.error is None)
        fired = outcome.region.fired if outcome.region else ()
        assert ("" if pd.isna(row["fired"]) else row["fired"]) == ";".join(fired)
        if outcome.region:
            for region, p in outcome.region.probabilities.items():
                assert row[f"p_{region}"] == pytest.approx(p, abs=1e-6)
            assert row["density"] == pytest.approx(outcome.region.density, abs=1e-6)
            assert row["density_threshold"] == outcome.region.density_threshold
        verdicts = {name: row[f"verdict_{name}"] for name in specialists}
        verdicts = {name: verdict for name, verdict in verdicts.items() if not pd.isna(verdict)}
        assert verdicts == {f.region: f.verdict.value for f in outcome.findings}
        for finding in outcome.findings:
            p = row[f"fracture_{finding.region}"]
            assert p == pytest.approx(finding.probability, abs=1e-6)
