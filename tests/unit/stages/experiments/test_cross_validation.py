"""Cross-validation: folds by group, pooled predictions, comparison of recipes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError, UsageError
from pipeline.progress import Silent
from stages.experiments.cross_validation import crossval_fracture, summarise
from stages.experiments.crossval_table import side_by_side
from stages.experiments.folds import folds_by_group
from stages.samples import Index, Sample
from stages.settings import FractureConfig
from stages.training.run_report import describe_crossval


def table(count=60):
    """A table with two pictures per group; the last ten groups are the test split."""
    samples = []
    for n in range(count):
        region = ("elbow", "hand", "shoulder")[n // 2 % 3]
        samples.append(
            Sample(
                Path(f"{n}.png"), region, n // 6 % 2, "fracture", f"g{n // 2}", "",
                "test" if n >= count - 20 else "train", "o", "", f"{n:064d}",
            )
        )  # fmt: skip
    return Index(Path("index.csv"), "d" * 64, tuple(samples))


def test_every_picture_outside_the_test_split_is_tested_in_exactly_one_fold():
    folds = folds_by_group(table(), 4, 7, ("train", "val")).tables
    tested = [s.path for fold in folds for s in fold.of("test")]
    assert sorted(tested) == sorted(s.path for s in table().samples if s.split != "test")
    assert len({fold.digest for fold in folds}) == 4


def test_folds_keep_groups_whole_and_exclude_the_test_split():
    held_out = {s.path for s in table().of("test")}
    for fold in folds_by_group(table(), 4, 7, ("train", "val")).tables:
        splits_of: dict[str, set[str]] = {}
        for sample in fold.samples:
            if sample.path in held_out:
                assert sample.split == "excluded"
            else:
                splits_of.setdefault(sample.group, set()).add(sample.split)
        assert all(len(splits) == 1 for splits in splits_of.values())
        assert {s.split for s in fold.samples} == {"train", "val", "test", "excluded"}


def test_folds_depend_only_on_the_seed():
    first, repeated, other = (
        folds_by_group(table(), 4, seed, ("train", "val")).tables for seed in (7, 7, 8)
    )
    assert [f.samples for f in first] == [f.samples for f in repeated]
    assert [f.samples for f in first] != [f.samples for f in other]


def test_table_without_rows_for_training_is_refused():
    bare = replace(table(), samples=table().of("test"))
    with pytest.raises(ConfigError, match="no picture in train or val"):
        folds_by_group(bare, 4, 7, ("train", "val"))


def write_fold(folder, number, scores, labels, first=0):
    """Write a finished fold whose test and validation rows have these logits and labels."""
    run = folder / f"fold-{number}"
    run.mkdir(parents=True)
    config = {"optim": {"epochs": 3}, "data": {"workers": 2}}
    described = {"kind": "fracture", "stage": "fracture-hand", "labels": ["fracture"],
                 "config": config, "index_digest": "d"}  # fmt: skip
    (run / "config.json").write_text(json.dumps(described))
    result = {"temperature": [2.0], "bias": [0.5], "best_epoch": number}
    (run / "result.json").write_text(json.dumps(result))
    count = len(labels)
    frame = pd.DataFrame(
        {
            "path": [f"{first + i}.png" for i in range(count)], "split": "test",
            "group": [f"g{first + i}" for i in range(count)], "regions": "hand", "origin": "o",
            "label": labels, "logit_fracture": scores,
        }
    )  # fmt: skip
    pd.concat([frame, frame.assign(split="val")]).to_csv(run / "predictions.csv", index=False)


def test_calibrated_predictions_of_finished_folds_are_pooled(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.statistics.metrics.BOOTSTRAPS", 100)
    write_fold(tmp_path, 1, [2.0, -2.0, 1.0, -1.0], [1, 0, 1, 0])
    write_fold(tmp_path, 3, [-1.0, 1.0, 0.5, -3.0], [1, 0, 1, 0], first=4)
    summary = summarise(tmp_path, list("12345"))
    assert summary["finished"] == [1, 3]
    assert summary["names"] == list("12345")
    pooled = pd.read_csv(tmp_path / "predictions.csv")
    assert len(pooled) == 8  # without the validation rows
    np.testing.assert_allclose(
        pooled["probability_fracture"], 1 / (1 + np.exp(-(pooled["logit_fracture"] / 2 + 0.5))),
        rtol=1e-6,
    )  # fmt: skip
    from sklearn.metrics import roc_auc_score

    figures = summary["pooled"]["hand in view"]
    assert figures["auc"]["value"] == roc_auc_score(pooled["label"], pooled["logit_fracture"])
    assert [row["hand alone"] for row in summary["by_fold"]] == [1.0, 0.5]


def test_recipes_are_compared_on_the_same_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.statistics.metrics.BOOTSTRAPS", 100)
    labels = [1, 0] * 10
    write_fold(tmp_path / "base", 1, list(np.linspace(1, -1, 20)), labels)
    write_fold(tmp_path / "better", 1, [x * 2.0 - 1 for x in labels], labels)
    for name in ("base", "better"):
        summarise(tmp_path / name, list("123"))
    described = json.loads((tmp_path / "better/result.json").read_text())
    described["config"]["optim"]["epochs"] = 9
    described["config"]["data"]["workers"] = 0
    (tmp_path / "better/result.json").write_text(json.dumps(described))
    base, better = side_by_side([tmp_path / "base", tmp_path / "better"])
    assert (base["changed"], better["changed"]) == ({}, {"optim.epochs": 9})
    figure = better["figures"]["hand in view"]
    assert figure["auc"]["value"] == 1.0
    gain = 1.0 - base["figures"]["hand in view"]["auc"]["value"]
    assert figure["difference"]["value"] == pytest.approx(gain)
    assert figure["difference"]["low"] <= gain <= figure["difference"]["high"]
    assert base["figures"]["hand in view"]["difference"]["value"] is None


def test_left_out_acquisitions_are_compared_with_folds_by_group(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.statistics.metrics.BOOTSTRAPS", 100)
    labels = [1, 0] * 4
    good, poor = [2.0, -2.0] * 4, [1.0, -1.0, -1.0, 1.0] * 2
    for name, second in (("home", good), ("away", poor)):
        write_fold(tmp_path / name, 1, good, labels)
        write_fold(tmp_path / name, 2, second, labels, first=8)
    summarise(tmp_path / "home", ["1", "2"])
    summarise(tmp_path / "away", ["set 1.22", "set 1.25"], "acquisition", "1 group(s) kept whole")
    home, away = side_by_side([tmp_path / "home", tmp_path / "away"])
    assert (home["left_out"], home["folds"]) == ([], "2 of 2")
    assert away["changed"] == {"by": "acquisition"}
    assert away["folds"] == "2 of 2: set 1.22, set 1.25"
    first, second = away["left_out"]
    assert (second["name"], second["pictures"]) == ("set 1.25", 8)
    assert second["figures"]["hand in view"]["value"] == 0.5
    assert second["home"]["hand in view"]["value"] == 1.0
    assert first["figures"] == first["home"]
    description = describe_crossval(tmp_path / "away")
    assert "left out: set 1.25, fold 2, 8 pictures\n" in description
    assert description.endswith("1 group(s) kept whole")
    assert "left out" not in describe_crossval(tmp_path / "home")
    (alone,) = side_by_side([tmp_path / "away"])
    assert (alone["changed"], alone["left_out"][1]["home"]) == ({}, {})


def test_older_results_without_acquisitions_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.statistics.metrics.BOOTSTRAPS", 100)
    write_fold(tmp_path, 1, [2.0, -2.0], [1, 0])
    summarise(tmp_path, ["1"])
    summary = json.loads((tmp_path / "result.json").read_text())
    for name in ("by", "names", "note"):
        del summary[name]
    (tmp_path / "result.json").write_text(json.dumps(summary))
    (row,) = side_by_side([tmp_path])
    assert (row["folds"], row["left_out"]) == ("1 of 1", [])


def test_specialist_is_compared_with_the_auxiliary_output_on_its_region(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.statistics.metrics.BOOTSTRAPS", 100)
    labels = [1, 0] * 10
    for name, stage in (("joint", "region"), ("hand", "fracture-hand")):
        write_fold(tmp_path / name, 1, list(np.linspace(1, -1, 20)), labels)
        summarise(tmp_path / name, list("123"))
        described = json.loads((tmp_path / name / "result.json").read_text())
        described["stage"] = stage
        described["config"] |= {"region": "hand", "train": {"trainable_from": "layer4"}}
        (tmp_path / name / "result.json").write_text(json.dumps(described))
    joint, hand = side_by_side([tmp_path / "joint", tmp_path / "hand"])
    assert hand["changed"] == {"stage": "fracture-hand", "train.trainable_from": "layer4"}
    assert set(joint["figures"]) == {"any region", "hand in view"}
    assert set(hand["figures"]) == {"hand in view"}
    assert hand["figures"]["hand in view"]["difference"]["value"] == 0.0


def test_specialist_needs_region_networks_of_the_same_folds(tmp_path):
    folds = folds_by_group(table(), 4, 7, ("train", "val"))
    config = FractureConfig(region="hand", region_run=tmp_path / "region")
    with pytest.raises(ConfigError, match="fold-1: no finished region run"):
        crossval_fracture(tmp_path / "hand", folds, config, [1], Silent())
    write_fold(tmp_path / "region", 1, [1.0], [1])
    with pytest.raises(ConfigError, match="other folds"):
        crossval_fracture(tmp_path / "hand", folds, config, [1], Silent())


def test_finished_folds_of_another_table_are_refused(tmp_path):
    folds = folds_by_group(table(), 4, 7, ("train", "val"))
    parent = tmp_path / "region"
    write_fold(parent, 1, [1.0], [1])
    described = json.loads((parent / "fold-1/config.json").read_text())
    (parent / "fold-1/config.json").write_text(
        json.dumps(described | {"index_digest": folds.tables[0].digest})
    )
    write_fold(tmp_path / "hand", 1, [1.0], [1])
    config = FractureConfig(region="hand", region_run=parent)
    with pytest.raises(UsageError, match="another table"):
        crossval_fracture(tmp_path / "hand", folds, config, [1], Silent())
