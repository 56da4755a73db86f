"""Training with other backbones, tables without regions, and labels of abnormality."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from click.testing import Result
from command_line import fxpipe
from conftest import TINY

VIT = "vit_tiny_patch16_224"


def succeed(*words: object) -> Result:
    """Run fxpipe; the exit code must be 0."""
    result = fxpipe(*words)
    assert result.exit_code == 0, result.output
    return result


def settings(*more: str) -> list[str]:
    return [word for setting in (*TINY, "optim.epochs=1", *more) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def without_regions(project, data, tmp_path_factory):
    """The table of a set with labels of abnormality and without regions."""
    home = tmp_path_factory.mktemp("plain")
    table = pd.read_csv(project / "index.csv", dtype=str, keep_default_na=False)
    table["path"] = [str(project / path) for path in table["path"]]
    table["regions"] = "unknown"
    table.loc[table["label"] != "", "label_kind"] = "abnormality"
    table.to_csv(home / "index.csv", index=False)
    return home


@pytest.fixture(scope="module")
def transformer(without_regions):
    """A vision transformer that was trained on it, exported, and run on two pictures."""
    home = without_regions
    index = home / "index.csv"
    results = [
        succeed(
            *("train-stage", "fracture", "--region", "all", "--init", "none", "--index", index),
            *("--output", home / "runs/all", *settings(f"train.arch={VIT}", "closer.count=0")),
        ),
        succeed(
            *("export", "--run", home / "runs", "--index", index, "--weights", home / "weights"),
            *("--set", "pictures=8", "--set", "calibration_pictures=8"),
        ),
        succeed(
            *("run", "--input", pictures(home), "--weights", home / "weights"),
            *("--output", home / "results", "--device", "cpu"),
        ),
    ]
    return home, results


def pictures(home):
    """A folder with two pictures of the table."""
    import shutil

    folder = home / "pictures"
    folder.mkdir()
    table = pd.read_csv(home / "index.csv")
    for path in table["path"][:2]:
        shutil.copy(path, folder)
    return folder


def test_named_backbone_is_trained_exported_and_run(transformer):
    home, _ = transformer
    described = json.loads((home / "runs/all/config.json").read_text())
    assert (described["arch"], described["heatmap"]) == (VIT, True)
    results = pd.read_csv(home / "results/results.csv")
    assert (results["status"] == "ok").all()
    assert (results["region"] == "all").all()
    assert (results["target"] == "abnormality").all()


def test_network_for_abnormality_never_reports_fracture(transformer):
    home, commands = transformer
    texts = {"terminal": "".join(result.output for result in commands)}
    for file in sorted((home / "results").iterdir()):
        texts[file.name] = file.read_text()
    for name, text in texts.items():
        # Only the name of the training command contains the word.
        assert "fractur" not in text.replace("train-stage fracture", "").lower(), name
        assert "abnormal" in text, name


def test_missing_region_stage_is_reported(transformer):
    _, commands = transformer
    assert "no region stage" in commands[-1].stderr


def test_heatmaps_of_a_transformer_are_evaluated(transformer):
    home, _ = transformer
    succeed(
        *("evaluate", "--index", home / "index.csv", "--weights", home / "weights", "--quiet"),
        *("--output", home / "evaluation", "--device", "cpu"),
    )
    evaluation = json.loads((home / "evaluation/evaluation.json").read_text())
    assert evaluation["region"] is None or "no region stage" in json.dumps(evaluation["region"])
    figures = evaluation["fracture"]["all"]["in view"]
    assert figures["pictures"] > 0
    assert figures["network"]["auc"]["value"] is not None
    predictions = pd.read_csv(home / "evaluation/predictions.csv")
    assert predictions["peak_x_all"].notna().all()


def test_label_kinds_are_mixed_only_on_request(without_regions, project, tmp_path):
    table = pd.read_csv(without_regions / "index.csv", dtype=str, keep_default_na=False)
    table.loc[table.index % 2 == 0, "label_kind"] = "fracture"
    table.to_csv(tmp_path / "index.csv", index=False)
    words = (
        *("train-stage", "fracture", "--region", "all", "--init", "none", "--quiet"),
        *("--index", tmp_path / "index.csv", "--output", tmp_path / "run"),
        *settings("train.arch=cnn_gap"),
    )
    refused = fxpipe(*words)
    assert refused.exit_code == 2
    assert "abnormal is not fractured" in refused.stderr
    assert not (tmp_path / "run").exists()
    succeed(*words, "--set", "mix_label_kinds=true")
    described = json.loads((tmp_path / "run/config.json").read_text())
    assert (described["target"], described["stage"]) == ("abnormality", "abnormality-all")


def test_init_and_from_exclude_each_other(project, tmp_path):
    words = ("train-stage", "fracture", "--region", "hand", "--index", project / "index.csv")
    result = fxpipe(*words, "--init", "none", "--from", project / "runs/region")
    assert result.exit_code == 2
    assert "--init and --from exclude each other" in result.stderr
    result = fxpipe(
        *(*words, "--from", project / "runs/region", "--output", tmp_path / "run", "--quiet"),
        *("--set", "train.arch=cnn_gap", "--set", "data.workers=0"),
    )
    assert result.exit_code == 2
    assert "train.arch is cnn_gap, but the network starts from" in result.stderr


def test_initial_weights_of_another_backbone_are_refused(project, tmp_path):
    result = fxpipe(
        *("train-stage", "fracture", "--region", "hand", "--index", project / "index.csv"),
        *("--init", project / "runs/hand", "--output", tmp_path / "run", "--quiet"),
        *settings("train.arch=resnet18"),
    )
    assert result.exit_code == 2
    assert "is a resnet50, but train.arch is resnet18" in result.stderr


def test_box_loss_needs_a_heatmap(project, tmp_path):
    result = fxpipe(
        *("train-stage", "fracture", "--region", "all", "--index", project / "index.csv"),
        *("--init", "none", "--output", tmp_path / "run", "--quiet"),
        *settings("train.arch=cnn_small", "optim.box_weight=0.5"),
    )
    assert result.exit_code == 2
    assert "cnn_small has no heatmap" in result.stderr
