"""``fxpipe calibrate`` and ``fxpipe evaluate`` with studies, and their figures recalculated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from bundles import write_png
from command_line import fxpipe
from sklearn import metrics
from tables import sample
from tiny_networks import write_bundles

from pipeline.bundle import BundleSpec, read_contract
from pipeline.config import RunConfig
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import read_manifest
from stages.data.index import read_index, write_index
from stages.statistics.study_thresholds import NO_STUDIES


def contract(weights: Path, name: str) -> BundleSpec:
    (entry,) = (e for e in read_manifest(weights).bundles if e.name == name)
    metadata = {p.key: p.value for p in onnx.load(weights / entry.file).metadata_props}
    return read_contract(metadata, name)


def write_table(folder: Path, studies: bool = True) -> Path:
    """Write studies of hands and a few elbows, with three pictures each; returns the table.

    One picture of a positive study is positive. Every patient has two studies.
    """
    random = np.random.default_rng(1)
    samples = []
    for split, count in (("val", 28), ("test", 24)):
        for n in range(count):
            region = "elbow" if n in (1, 2) else "hand"
            for k in range(3):
                label = int(n % 2 == 0 and k == 0)
                cell = float(np.clip(random.normal(0.43 + 0.1 * label, 0.07), 0, 1))
                name = f"pictures/{split}-{n}-{k}.png"
                path = write_png(folder / name, {region: 0.7 + 0.002 * n}, {region: cell})
                samples.append(sample(
                    str(path), split=split, regions=region, label=label, sha256=name,
                    group=f"{split}/p{n // 2}", study=f"{split}/s{n}" if studies else "",
                ))  # fmt: skip
    write_index(samples, folder / "index.csv")
    return folder / "index.csv"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with weights that have study thresholds for hands, evaluated on other studies."""
    home = tmp_path_factory.mktemp("studies")
    index = write_table(home)
    write_bundles(home / "weights")
    calibrated = fxpipe(
        *("calibrate", "--input", index, "--weights", home / "weights", "--output", home / "own")
    )
    assert calibrated.exit_code == 0, calibrated.output
    (home / "calibrated.txt").write_text(calibrated.output)
    evaluated = fxpipe(
        *("evaluate", "--index", index, "--weights", home / "own", "--output", home / "out"),
        *("--device", "cpu"),
    )
    assert evaluated.exit_code == 0, evaluated.output
    (home / "evaluated.txt").write_text(evaluated.stdout)
    return home


def test_calibrate_stores_study_points_if_there_are_enough_studies(home):
    output = (home / "calibrated.txt").read_text()
    hand = contract(home / "own", "fracture-hand")
    assert set(hand.study_points) == {"sensitive", "balanced", "specific"}
    point = hand.study_points["specific"]
    assert point.threshold > hand.operating_points["specific"].threshold
    assert f"specific (studies): threshold {point.threshold:.4f}" in output
    assert "of 26 studies, 26 of them with several pictures" in point.rule
    assert None not in (point.specificity.value, point.specificity.low, point.sensitivity.high)
    assert contract(home / "own", "fracture-elbow").study_points == {}


def test_groups_can_replace_missing_studies(tmp_path):
    index = write_table(tmp_path, studies=False)
    shared = ("calibrate", "--input", index, "--quiet", "--weights")
    fxpipe(*shared, write_bundles(tmp_path / "weights"), "--output", tmp_path / "none")
    first = fxpipe(
        *shared, tmp_path / "weights", "--output", tmp_path / "one", "--study-by", "group"
    )
    assert contract(tmp_path / "none", "fracture-hand").study_points == {}
    # Nearly every patient has a positive study.
    assert "no thresholds for studies: 13 positive and 1 other groups used" in first.output
    again = fxpipe(*shared, tmp_path / "one", "--output", tmp_path / "two")
    assert f"no thresholds for studies: {NO_STUDIES}" in again.output


def test_older_study_points_are_removed(home, tmp_path):
    index = write_table(tmp_path, studies=False)
    fxpipe(
        *("calibrate", "--input", index, "--weights", home / "own", "--output", tmp_path / "new"),
        "--quiet",
    )
    assert contract(tmp_path / "new", "fracture-hand").study_points == {}
    assert contract(tmp_path / "new", "region") == contract(home / "own", "region")


def recomputed(table: pd.DataFrame, threshold: str) -> dict[str, float]:
    """The figures of hands, from their definitions with pandas and scikit-learn."""
    rows = table[(table["view_hand"] == 1) & table["label"].notna() & (table["status"] != "failed")]
    studies = rows.groupby("study").agg(
        label=("label", "max"), p=("fracture_hand", "max"), t=(threshold, "first")
    )
    calls, picture_calls = studies["p"] >= studies["t"], rows["fracture_hand"] >= rows[threshold]
    figures = {
        "auc": metrics.roc_auc_score(studies["label"], studies["p"]),
        "sensitivity": metrics.recall_score(studies["label"], calls),
        "specificity": metrics.recall_score(1 - studies["label"], ~calls),
        "pictures": metrics.recall_score(1 - rows["label"], ~picture_calls),
    }
    return figures | {"cost": figures["pictures"] - figures["specificity"]}


@pytest.mark.parametrize(
    ("threshold", "column"),
    [("picture threshold", "threshold_hand"), ("study threshold", "study_threshold_hand")],
)
def test_figures_can_be_recalculated_from_the_predictions(home, threshold, column):
    table = pd.read_csv(home / "out/predictions.csv")
    part = json.loads((home / "out/evaluation.json").read_text())["studies"]["hand"]["in view"]
    at = part["at"][threshold]
    figures = {
        "auc": part["auc"]["studies"],
        "sensitivity": at["studies"]["sensitivity"],
        "specificity": at["studies"]["specificity"],
        "pictures": at["pictures"]["specificity"],
        "cost": at["specificity_cost"],
    }
    for name, value in recomputed(table, column).items():
        assert figures[name]["value"] == pytest.approx(value, abs=1e-12), name
    assert (part["studies"], part["positives"], part["several"]) == (22, 11, 22)
    low, high = bootstrapped_cost(table, column)
    if at["specificity_cost"]["low"] is not None:
        assert at["specificity_cost"]["low"] == pytest.approx(low, abs=0.03)
        assert at["specificity_cost"]["high"] == pytest.approx(high, abs=0.03)


def bootstrapped_cost(table: pd.DataFrame, threshold: str) -> list[float]:
    """The 95 % interval of the cost, by bootstrap of whole groups."""
    counts = []
    for _, rows in table[table["view_hand"] == 1].groupby("group"):
        studies = rows.groupby("study").agg(
            label=("label", "max"), p=("fracture_hand", "max"), t=(threshold, "first")
        )
        of_pictures, of_studies = rows[rows["label"] == 0], studies[studies["label"] == 0]
        passed = (of_pictures["fracture_hand"] < of_pictures[threshold]).sum()
        counts.append(
            (passed, len(of_pictures), (of_studies["p"] < of_studies["t"]).sum(), len(of_studies))
        )
    chosen = np.random.default_rng(5).integers(0, len(counts), (20_000, len(counts)))
    a, b, c, d = np.array(counts, float)[chosen].sum(1).T
    with np.errstate(invalid="ignore"):
        return list(np.nanpercentile(a / b - c / d, [2.5, 97.5]))


def test_studies_are_in_terminal_tables_and_page(home):
    text = (home / "evaluated.txt").read_text()
    for words in ("hand: AUC", "specificity,", "own", "22 (11)", "cost: specificity"):
        assert words in text, words
    rows = pd.read_csv(home / "out/studies.csv")
    assert set(rows["threshold"].dropna()) == {"picture threshold", "study threshold"}
    page = (home / "out/index.html").read_text(encoding="utf-8")
    assert "<h2>Studies</h2>" in page
    assert "hand: specificity cost, own" in page
    assert "None" not in page
    facts = json.loads((home / "out/evaluation.json").read_text())["facts"]
    assert (facts["study_by"], facts["no_studies"], list(facts["study_points"])) == (
        "study", "", ["hand"],
    )  # fmt: skip


def test_evaluate_reports_a_table_without_studies(tmp_path):
    index = write_table(tmp_path, studies=False)
    shared = ("evaluate", "--index", index, "--weights", write_bundles(tmp_path / "weights"))
    plain = fxpipe(*shared, "--output", tmp_path / "out", "--device", "cpu")
    evaluation = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert (evaluation["studies"], evaluation["facts"]["no_studies"]) == (None, NO_STUDIES)
    assert "not measured, the table has no studies" in plain.stdout
    assert "not measured, the table has no studies" in (tmp_path / "out/index.html").read_text()
    assert not (tmp_path / "out/studies.csv").exists()
    grouped = fxpipe(
        *shared, "--output", tmp_path / "grouped", "--device", "cpu", "--study-by", "group"
    )
    assert "groups used as studies" in grouped.stdout
    hand = json.loads((tmp_path / "grouped/evaluation.json").read_text())["studies"]["hand"]
    assert hand["in view"]["studies"] == 12


def test_run_has_the_verdicts_that_evaluate_measures(home, tmp_path):
    """Both commands have the same probability and call for each study."""
    index = read_index(home / "index.csv")
    lines = ["path,study", *(f"{s.path.name},{s.study}" for s in index.samples)]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    fxpipe(
        *("run", "--input", home / "pictures", "--weights", home / "own", "--output", tmp_path),
        *("--studies", tmp_path / "table.csv", "--device", "cpu", "--quiet"),
    )
    studies = pd.read_csv(tmp_path / "studies.csv").set_index("study")
    assert len(studies) == 28 + 24
    table = pd.read_csv(home / "out/predictions.csv")
    hands = table[table["view_hand"] == 1].groupby("study")
    for study, rows in hands:
        p, threshold = rows["fracture_hand"].max(), rows["study_threshold_hand"].iloc[0]
        assert studies.loc[study, "probability_hand"] == pytest.approx(p, abs=1e-5)
        assert (studies.loc[study, "verdict_hand"] == "positive") == (p >= threshold)
        assert studies.loc[study, "threshold_of"] == "study"
    assert set(studies.loc[studies["regions"] == "elbow", "threshold_of"]) == {"picture"}


def test_fused_graph_keeps_the_study_points(home, tmp_path):
    fused = fxpipe(
        *("export", "--fused", "--weights", home / "own", "--output", tmp_path / "fused"),
        *("--input", home / "pictures", "--precision", "fp32"),
    )
    assert fused.exit_code == 0, fused.output
    config = RunConfig(device="cpu")
    points = load_bundles(tmp_path / "fused", config).study_points
    assert points == load_bundles(home / "own", config).study_points
    assert list(points) == ["hand"]
