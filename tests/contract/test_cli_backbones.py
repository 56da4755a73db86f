"""Networks of their own: any backbone, data without regions, labels that say abnormal."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import TINY

from pipeline.cli import main

VIT = "vit_tiny_patch16_224"


def fxpipe(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def done(*words: object) -> Result:
    result = fxpipe(*words)
    assert result.exit_code == 0, result.output
    return result


def settings(*more: str) -> list[str]:
    return [word for setting in (*TINY, "optim.epochs=1", *more) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def without_regions(project, data, tmp_path_factory):
    """The table of a set that says abnormal or not, and nothing of regions."""
    home = tmp_path_factory.mktemp("plain")
    table = pd.read_csv(project / "index.csv", dtype=str, keep_default_na=False)
    table["path"] = [str(project / path) for path in table["path"]]
    table["regions"] = "unknown"
    table.loc[table["label"] != "", "label_kind"] = "abnormality"
    table.to_csv(home / "index.csv", index=False)
    return home


@pytest.fixture(scope="module")
def transformer(without_regions):
    """A vision transformer trained on it, exported, and run on two pictures."""
    home = without_regions
    index = home / "index.csv"
    told = [
        done(
            *("train-stage", "fracture", "--region", "all", "--init", "none", "--index", index),
            *("--output", home / "runs/all", *settings(f"train.arch={VIT}", "closer.count=0")),
        ),
        done(
            *("export", "--run", home / "runs", "--index", index, "--weights", home / "weights"),
            *("--set", "pictures=8", "--set", "calibration_pictures=8"),
        ),
        done(
            *("run", "--input", pictures(home), "--weights", home / "weights"),
            *("--output", home / "results", "--device", "cpu"),
        ),
    ]
    return home, told


def pictures(home):
    """Two pictures of the table in a folder."""
    import shutil

    folder = home / "pictures"
    folder.mkdir()
    table = pd.read_csv(home / "index.csv")
    for path in table["path"][:2]:
        shutil.copy(path, folder)
    return folder


def test_a_backbone_by_name_goes_all_the_way(transformer):
    home, _ = transformer
    described = json.loads((home / "runs/all/config.json").read_text())
    assert (described["arch"], described["heatmap"]) == (VIT, True)
    results = pd.read_csv(home / "results/results.csv")
    assert (results["status"] == "ok").all()
    assert (results["region"] == "all").all()
    assert (results["target"] == "abnormality").all()


def test_what_learned_from_abnormality_never_says_fracture(transformer):
    home, told = transformer
    texts = {"terminal": "".join(result.output for result in told)}
    for file in sorted((home / "results").iterdir()):
        texts[file.name] = file.read_text()
    for name, text in texts.items():
        # Of the product's own words, only the stage is called that: its command and its folder.
        own = text.replace("train-stage fracture", "")
        assert "fractur" not in own.lower(), name
        assert "abnormal" in text, name


def test_every_picture_is_judged_where_nothing_routes_and_that_is_said(transformer):
    _, told = transformer
    assert "no region stage" in told[-1].stderr


def test_its_maps_are_evaluated_too(transformer):
    home, _ = transformer
    done(
        *("evaluate", "--index", home / "index.csv", "--weights", home / "weights", "--quiet"),
        *("--output", home / "evaluation", "--device", "cpu"),
    )
    found = json.loads((home / "evaluation/evaluation.json").read_text())
    assert found["region"] is None or "no region stage" in json.dumps(found["region"])
    every = found["fracture"]["all"]["in view"]
    assert every["pictures"] > 0
    assert every["network"]["auc"]["value"] is not None
    predictions = pd.read_csv(home / "evaluation/predictions.csv")
    assert predictions["peak_x_all"].notna().all()


def test_kinds_of_labels_are_mixed_only_when_asked_for(without_regions, project, tmp_path):
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
    done(*words, "--set", "mix_label_kinds=true")
    described = json.loads((tmp_path / "run/config.json").read_text())
    assert (described["target"], described["stage"]) == ("abnormality", "abnormality-all")


def test_a_specialist_goes_on_or_starts_by_itself_but_not_both(project, tmp_path):
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


def test_weights_of_another_backbone_are_refused(project, tmp_path):
    result = fxpipe(
        *("train-stage", "fracture", "--region", "hand", "--index", project / "index.csv"),
        *("--init", project / "runs/hand", "--output", tmp_path / "run", "--quiet"),
        *settings("train.arch=resnet18"),
    )
    assert result.exit_code == 2
    assert "is a resnet50, but train.arch is resnet18" in result.stderr


def test_the_box_loss_needs_a_heatmap(project, tmp_path):
    result = fxpipe(
        *("train-stage", "fracture", "--region", "all", "--index", project / "index.csv"),
        *("--init", "none", "--output", tmp_path / "run", "--quiet"),
        *settings("train.arch=cnn_small", "optim.box_weight=0.5"),
    )
    assert result.exit_code == 2
    assert "cnn_small has no heatmap" in result.stderr
