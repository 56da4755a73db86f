"""``fxpipe index``, ``train-stage`` and ``export`` from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import fxpipe
from conftest import TINY
from tables import picture

from pipeline.report.columns import COLUMNS


def test_index_prints_the_counts(data, tmp_path):
    result = fxpipe("index", "--input", data, "--output", tmp_path / "index.csv")
    assert result.exit_code == 0
    for word in ("elbow", "hand", "shoulder", "none", "train", "val", "test", "113 pictures"):
        assert word in result.stdout


def test_index_is_reproducible_by_seed(data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fxpipe("index", "--input", data, "--output", tmp_path / name, "--seed", seed)
    first, second, other = ((tmp_path / name).read_text() for name in "abc")
    assert first == second != other


def test_index_accepts_folders_of_negatives(data, tmp_path):
    from PIL import Image

    (tmp_path / "chest").mkdir()
    for n in range(7):
        Image.fromarray(picture("leg", False, n)).save(tmp_path / f"chest/{n}.png")
    table = tmp_path / "index.csv"
    fxpipe("index", "--input", data, "--negatives", tmp_path / "chest", "--output", table)
    with table.open(newline="") as file:
        chest = [row for row in csv.DictReader(file) if row["origin"] == "chest"]
    assert len(chest) == 7
    assert {(row["regions"], row["label"]) for row in chest} == {("none", "")}


def test_index_lists_the_faults_of_a_table(data, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.csv").write_text("image_id,region\nx.jpg,hand\n")
    result = fxpipe("index", "--input", tmp_path, "--output", tmp_path / "index.csv")
    assert result.exit_code == 1
    assert "5 fault(s)" in result.stderr
    assert "no column 'fractured'" in result.stderr
    assert not (tmp_path / "index.csv").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train-stage", "region", "--index", "none.csv"], 2, "none.csv: cannot be read"),
        (["train-stage", "region", "--set", "optim.epoch=3"], 2, "did you mean optim.epochs?"),
        (["train-stage", "region", "--set", "optim.epochs=0"], 2, "optim.epochs"),
        (["train-stage", "fracture", "--region", "foot"], 2, "foot"),
        (["train-stage", "fracture"], 2, "--region"),
        (["export", "--run", "nowhere"], 2, "no finished run"),
        (["export", "--precision", "int4"], 2, "int4"),
    ],
)
def test_wrong_usage_exits_2_and_is_reported(words, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fxpipe(*words)
    assert result.exit_code == code
    assert message in result.output


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("missing.safetensors", "cannot read the safetensors file"),
        ("it's missing.safetensors", "cannot read the safetensors file"),
        ("text.txt", "cannot read"),
    ],
)
def test_unreadable_initial_weights_are_named(project, tmp_path, init, message):
    (tmp_path / "text.txt").write_text("no weights")
    result = fxpipe(
        *("train-stage", "region", "--index", project / "index.csv", "--quiet"),
        *("--output", tmp_path / "run", "--init", tmp_path / init),
    )
    assert result.exit_code == 2
    assert message in result.stderr
    assert init in result.stderr


def test_unreachable_hub_is_reported_before_pictures_are_read(project, tmp_path, monkeypatch):
    from huggingface_hub import constants

    from stages.training import pretrained_check

    monkeypatch.setattr(pretrained_check, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://nowhere.invalid")
    result = fxpipe(
        *("train-stage", "region", "--index", project / "index.csv", "--quiet"),
        *("--output", tmp_path / "run", "--set", f"data.cache={tmp_path / 'cache'}"),
    )
    assert result.exit_code == 2
    assert "timm's weights of resnet50 are not available: http://nowhere.invalid: " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_warnings_about_reliability_are_printed_last_and_logged(project, tmp_path):
    run = tmp_path / "run"
    result = fxpipe(
        *("train-stage", "region", "--index", project / "index.csv", "--quiet"),
        *("--output", run, "--init", "none", "--set", "train.arch=cnn_gap"),
        *("--set", "optim.epochs=1", "--set", f"data.cache={tmp_path / 'cache'}"),
        *(word for setting in TINY for word in ("--set", setting)),
    )
    assert result.exit_code == 0, result.output
    last = [line for line in result.output.splitlines() if line.strip()][-1]
    assert last.startswith(f"WARNING: {run}: the validation split shows ")
    log = (run / "train.log").read_text(encoding="utf-8")
    assert "pictures/s in training; time left" in log
    assert "INFO" in log  # although --quiet shows only warnings
    assert "time left" not in result.output


def test_fracture_stage_needs_a_region_run(project, tmp_path):
    result = fxpipe(
        *("train-stage", "fracture", "--region", "hand", "--index", project / "index.csv"),
        *("--from", tmp_path / 'o\'brien/"runs"', "--output", tmp_path / "run"),
    )
    assert result.exit_code == 2
    assert f'{tmp_path}/o\'brien/"runs": not a trained run' in result.stderr
    assert "train-stage region" in result.stderr


def test_trained_and_exported_weights_run(project, data, tmp_path):
    from pipeline.weights.manifest import read_manifest

    manifest = read_manifest(project / "weights")
    assert [p.value for p in manifest.precisions] == ["fp32", "fp16", "int8"]
    result = fxpipe(
        *("run", "--input", data / "images", "--weights", project / "weights"),
        *("--output", tmp_path / "out", "--device", "cpu", "--quiet"),
    )
    assert result.exit_code == 1  # one file of the folder is truncated
    with (tmp_path / "out/results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(list((data / "images").iterdir()))
    assert [row["path"] for row in rows if row["status"] == "failed"] == ["IMG9000000.jpg"]


def test_test_figures_have_intervals_and_baselines(project):
    from stages.training.run_report import describe_result

    text = describe_result(project / "runs/region") + describe_result(project / "runs/hand")
    words = ("region accuracy", "majority", "AUC", "chance 0.5", "sensitivity", "[", "density gate")
    for word in words:
        assert word in text


def test_predictions_reproduce_the_figures(project):
    """The AUC in ``result.json`` can be recalculated from the saved predictions."""
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    run: Path = project / "runs/hand"
    result = json.loads((run / "result.json").read_text())
    table = pd.read_csv(run / "predictions.csv")
    test = table[table.split == "test"]
    auc = roc_auc_score(test.label, test.logit_fracture)
    assert result["test"]["all"]["auc"]["value"] == pytest.approx(auc)
