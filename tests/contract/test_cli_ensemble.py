"""``fxpipe ensemble`` and every command that reads its folder, on the small trained project."""

from __future__ import annotations

import csv
import json

import pytest
from bundles import spec
from command_line import fxpipe
from tiny_networks import write_bundles

from pipeline.bundle import EnsembleSpec, FractureSpec, Kind
from pipeline.config import RunConfig
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import read_manifest

MEMBERS = ("fracture-hand-1", "fracture-hand-2")


@pytest.fixture(scope="module")
def calibrated(project, tmp_path_factory):
    """The same specialists with another calibration."""
    target = tmp_path_factory.mktemp("calibrated") / "weights"
    result = fxpipe(
        *("calibrate", "--input", project / "index.csv", "--split", "train", "--quiet"),
        *("--weights", project / "weights", "--output", target),
    )
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture(scope="module")
def ensemble(project, calibrated, tmp_path_factory):
    """An ensemble, on the training split, the only one with enough pictures per label."""
    target = tmp_path_factory.mktemp("ensemble") / "weights"
    result = fxpipe(
        *("ensemble", "--region", "hand", "--index", project / "index.csv", "--split", "train"),
        *("--member", project / "weights", "--member", f"{calibrated}:fracture-hand"),
        *("--output", target, "--sensitivity", "0.8", "--quiet"),
    )
    assert result.exit_code == 0, result.output
    return target, result.output


def test_members_and_thresholds_are_reported(project, ensemble):
    target, output = ensemble
    assert "fracture-hand: the mean of 2 members" in output
    assert f"fracture-hand-1: fracture-hand of {project / 'weights'}" in output
    assert "sensitive: threshold 0." in output
    assert "split train was used to train trunk, " in output
    assert f"{target}: written in " in output
    assert "no heatmap" not in output
    listed = {entry.name for entry in read_manifest(target).bundles}
    assert listed == {
        *("trunk", "region", "fracture-elbow", "fracture-hand", "fracture-shoulder"), *MEMBERS,
    }  # fmt: skip


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_every_precision_has_the_same_thresholds(ensemble, precision):
    target, _ = ensemble
    weights = load_bundles(target, RunConfig(device="cpu", precision=precision))
    spec = weights.fracture["hand"].spec
    assert isinstance(spec, EnsembleSpec)
    assert tuple(spec.members) == MEMBERS
    assert "sensitivity 0.8" in spec.operating_points["sensitive"].rule
    reference = load_bundles(target, RunConfig(device="cpu", precision="int8"))
    assert spec.operating_points == reference.fracture["hand"].spec.operating_points


def test_run_and_evaluate_agree_and_list_every_file(project, data, ensemble, tmp_path):
    target, _ = ensemble
    result = fxpipe(
        *("evaluate", "--index", project / "index.csv", "--weights", target, "--quiet"),
        *("--output", tmp_path / "evaluation", "--split", "all", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    evaluation = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    assert set(MEMBERS) <= set(evaluation["facts"]["bundles"])
    assert evaluation["facts"]["seen_in_training"]["status"] == "yes"
    with (tmp_path / "evaluation/predictions.csv").open(newline="") as file:
        predicted = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    fxpipe(
        *("run", "--input", data / "images", "--weights", target, "--quiet", "--device", "cpu"),
        *("--output", tmp_path / "run"),
    )
    with (tmp_path / "run/results.csv").open(newline="") as file:
        every = list(csv.DictReader(file))
    rows = [row for row in every if row["verdict_hand"]]
    assert rows
    for row in rows:
        assert float(row["probability_hand"]) == pytest.approx(
            float(predicted[row["path"]]["fracture_hand"]), abs=1e-5
        )
        assert row["verdict_hand"] == predicted[row["path"]]["verdict_hand"]
        assert {"trunk", "region", "fracture-hand", *MEMBERS} <= set(
            json.loads(row["bundle_digests"])
        )
        assert predicted[row["path"]]["peak_x_hand"]


def test_calibrate_and_cards_use_the_folder(project, ensemble, tmp_path):
    target, _ = ensemble
    result = fxpipe(
        *("calibrate", "--input", project / "index.csv", "--split", "train", "--quiet"),
        *("--weights", target, "--output", tmp_path / "weights"),
    )
    assert result.exit_code == 0, result.output
    old, new = (
        {entry.name: entry.sha256 for entry in read_manifest(folder).bundles}
        for folder in (target, tmp_path / "weights")
    )
    assert all(new[name] == old[name] for name in MEMBERS)
    assert new["fracture-hand"] != old["fracture-hand"]
    calibrated = load_bundles(tmp_path / "weights", RunConfig(device="cpu"))
    hand, elbow = (calibrated.fracture[region].spec for region in ("hand", "elbow"))
    assert hand.temperature != (1.0,)
    assert hand.temperature != elbow.temperature  # log odds of a different scale
    result = fxpipe(
        *("evaluate", "--index", project / "index.csv", "--weights", tmp_path / "weights"),
        *("--output", tmp_path / "evaluation", "--quiet", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    figures = tmp_path / "evaluation/evaluation.json"
    result = fxpipe("cards", "--weights", tmp_path / "weights", "--evaluation", figures)
    assert result.exit_code == 0, result.output
    card = (tmp_path / "weights/fracture-hand/README.md").read_text()
    assert "[fracture-hand-1](../fracture-hand-1/README.md) and [fracture-hand-2]" in card
    assert "**hand, in view**" in card
    member = (tmp_path / "weights/fracture-hand-1/README.md").read_text()
    assert "A member of [fracture-hand]" in member
    assert "**hand, in view**" not in member
    assert (
        "mean of fracture-hand-1, fracture-hand-2" in (tmp_path / "weights/README.md").read_text()
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--member", "{weights}"), 2, "1 member, expected two or more"),
        (("--member", "{weights}", "--member", "{weights}"), 2, "is already a member"),
        (("--member", "{weights}", "--member", "{weights}:foot"), 3, "contains no foot"),
        (("--member", "{weights}", "--member", "nowhere"), 3, "nowhere"),
        (
            ("--member", "{weights}", "--member", "{weights}:fracture-elbow"),
            2,
            "fracture-elbow judges elbow, expected hand or all",
        ),
        (
            ("--member", "{weights}", "--member", "{mura}"),
            2,
            "predicts abnormality (fracture), expected",
        ),
        (
            ("--member", "{weights}", "--member", "{calibrated}", "--output", "{weights}"),
            2,
            "not empty",
        ),
        (
            ("--member", "{weights}", "--member", "{calibrated}"),
            2,
            "too few labelled pictures in split val",
        ),
        ((), 2, "--member"),
    ],
)
def test_wrong_usage_is_reported(project, calibrated, tmp_path, words, code, message):
    mura = spec("fracture-hand", Kind.FRACTURE, input="image", trunk=None, target="abnormality")
    places = {
        "weights": project / "weights",
        "calibrated": calibrated,
        "mura": write_bundles(tmp_path / "mura", [mura]),
    }
    result = fxpipe(
        *("ensemble", "--region", "hand", "--index", project / "index.csv"),
        *("--output", tmp_path / "new", *(word.format(**places) for word in words)),
    )
    assert result.exit_code == code, result.output
    assert message in result.output
    assert not (tmp_path / "new").exists()


def test_exported_specialist_replaces_the_ensemble(project, ensemble, tmp_path):
    import shutil

    target, _ = ensemble
    weights = shutil.copytree(target, tmp_path / "weights")
    result = fxpipe(
        *("export", "--run", project / "runs/hand", "--index", project / "index.csv"),
        *("--weights", weights, "--set", "pictures=2", "--set", "calibration_pictures=2"),
        *("--precision", "int8"),
    )
    assert result.exit_code == 0, result.output
    names = {entry.name for entry in read_manifest(weights).bundles}
    assert "fracture-hand" in names
    assert not names & set(MEMBERS)
    opened = load_bundles(weights, RunConfig(device="cpu", precision="int8"))
    assert isinstance(opened.fracture["hand"].spec, FractureSpec)


def test_training_cannot_start_from_an_ensemble(project, ensemble, tmp_path):
    target, _ = ensemble
    result = fxpipe(
        *("train-stage", "fracture", "--region", "hand", "--index", project / "index.csv"),
        *("--from", target, "--output", tmp_path / "run", "--quiet"),
    )
    assert result.exit_code == 2
    assert "is the mean of fracture-hand-1, fracture-hand-2" in result.stderr
