"""``fxpipe calibrate`` and ``fxpipe cards`` on the small trained project."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from bundles import for_all, standard_specs, write_png
from click.testing import CliRunner
from command_line import fxpipe
from onnx import numpy_helper
from tables import sample
from tiny_networks import write_bundles

from pipeline.bundle import Estimate, read_contract
from pipeline.cli import main
from pipeline.config import RunConfig
from pipeline.runtime.network import Network
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import read_manifest
from stages.bundles.model_cards import UNMEASURED
from stages.data.index import write_index
from stages.evaluation.headlines import words


def contract(weights, name, precision):
    graph = onnx.load(weights / name / f"{precision}.onnx")
    metadata = {prop.key: prop.value for prop in graph.metadata_props}
    return graph, read_contract(metadata, name)


@pytest.fixture(scope="module")
def calibrated(project, tmp_path_factory):
    """Weights calibrated on the training split, the only one with enough pictures per label."""
    target = tmp_path_factory.mktemp("calibrated") / "weights"
    result = fxpipe(
        *("calibrate", "--input", project / "index.csv", "--split", "train", "--quiet"),
        *("--weights", project / "weights", "--output", target, "--sensitivity", "0.8"),
    )
    assert result.exit_code == 0, result.output
    return target, result.output


def test_calibration_changes_thresholds_and_no_weights(project, calibrated):
    target, _ = calibrated
    for entry in read_manifest(target).bundles:
        old, was = contract(project / "weights", entry.name, entry.precision)
        new, spec = contract(target, entry.name, entry.precision)
        assert hashlib.sha256((target / entry.file).read_bytes()).hexdigest() == entry.sha256
        before, after = (
            {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
            for graph in (old, new)
        )
        assert before.keys() == after.keys()
        changed = {n for n, value in before.items() if not np.array_equal(value, after[n])}
        assert changed <= {"temperature", "bias"}
        if spec.kind == "fracture":
            assert spec.operating_points != was.operating_points
            assert "sensitivity 0.8" in spec.operating_points["sensitive"].rule
            assert float(after["temperature"][0]) == pytest.approx(spec.temperature[0], rel=1e-3)
        else:
            assert spec == was


def test_use_of_training_rows_is_reported(calibrated, project, tmp_path):
    _, output = calibrated
    assert output.count("warning: ") >= 1
    for word in ("split train was used to train trunk", "-hand"):
        assert word in output
    result = fxpipe(
        *("calibrate", "--input", project / "index.csv", "--split", "test", "--quiet"),
        *("--weights", project / "weights", "--output", tmp_path / "w"),
    )
    assert "is the test split of trunk" in result.stderr
    other = tmp_path / "other.csv"
    other.write_bytes((project / "index.csv").read_bytes() + b"\n")
    result = fxpipe(
        *("calibrate", "--input", other, "--split", "train", "--quiet"),
        *("--weights", project / "weights", "--output", tmp_path / "w"),
    )
    assert "was used to train" not in result.output


def test_shared_calibration_of_regions_is_reported(calibrated):
    target, output = calibrated
    shared = [line for line in output.splitlines() if "temperature" in line]
    assert len(shared) > 1
    assert all("(one pair for " in line for line in shared)
    pairs = {
        (spec.temperature, spec.bias)
        for region in ("elbow", "hand", "shoulder")
        for _, spec in [contract(target, f"fracture-{region}", "fp32")]
        if f"{region}: " in output
    }
    assert len(pairs) == 1
    assert fxpipe("cards", "--weights", target).exit_code == 0
    card = (target / "fracture-hand/README.md").read_text()
    assert "Temperature and bias are shared by " in card


def test_run_uses_the_new_folder(data, calibrated, tmp_path):
    target, output = calibrated
    assert f"--weights {target}" in output
    result = fxpipe(
        "run", "--input", data / "images/IMG0000000.jpg", "--weights", target, "--quiet",
        "--output", tmp_path, "--operating-point", "sensitive",
    )  # fmt: skip
    assert result.exit_code == 0


def test_graph_uses_temperature_and_bias_of_the_new_contract(project, calibrated):
    target, _ = calibrated
    weights = load_bundles(target, RunConfig(precision="fp32", looks=1))
    stage = weights.fracture["hand"]
    assert isinstance(stage, Network)
    features = np.random.default_rng(0).random(
        (2, stage.channels("features") or 2048, 2, 2), np.float32
    )
    output = stage.predict(features)
    z = output.logits / stage.spec.temperature[0] + stage.spec.bias[0]
    np.testing.assert_allclose(output.probabilities, 1 / (1 + np.exp(-z)), rtol=1e-4)


def test_points_only_keeps_the_probabilities(project, tmp_path):
    result = fxpipe(
        *("calibrate", "--input", project / "index.csv", "--split", "train", "--quiet"),
        *("--weights", project / "weights", "--output", tmp_path / "w", "--points-only"),
    )
    assert result.exit_code == 0
    _, was = contract(project / "weights", "fracture-hand", "int8")
    _, spec = contract(tmp_path / "w", "fracture-hand", "int8")
    assert (spec.temperature, spec.bias) == (was.temperature, was.bias)


def test_specialist_for_all_regions_is_calibrated_separately_on_all_labelled_pictures(tmp_path):
    samples = []
    for n in range(40):
        label = n % 2
        regions = ("hand", "unknown", "none")[n % 3] if n >= 24 else "hand"
        cells = {"hand": 0.3 + 0.2 * label + 0.008 * n, "all": 0.45 + 0.1 * label}
        path = write_png(tmp_path / f"{n}.png", {"hand": 0.9}, cells)
        samples.append(sample(str(path), split="val", regions=regions, label=label))
    write_index(samples, tmp_path / "index.csv")
    specs = [*standard_specs()[:2], standard_specs()[3], for_all()[1]]
    result = fxpipe(
        *("calibrate", "--input", tmp_path / "index.csv", "--quiet"),
        *("--weights", write_bundles(tmp_path / "w", specs), "--output", tmp_path / "new"),
    )
    assert result.exit_code == 0, result.output
    assert "all: 40 pictures, 20 positive" in result.output
    hands = sum(s.regions == "hand" for s in samples)
    assert f"hand: {hands} pictures" in result.output
    weights = load_bundles(tmp_path / "new", RunConfig(device="cpu"))
    hand, every = (weights.fracture[name].spec for name in ("hand", "all"))
    assert (hand.temperature, hand.bias) != (every.temperature, every.bias)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--output", "{weights}"), 2, "the folder is not empty"),
        (("--split", "val", "--output", "{new}"), 2, "too few labelled pictures in split val"),
        (("--output", "{new}", "--input", "nowhere.csv"), 2, "given 2 times"),
        (("--sensitivity", "1.5", "--output", "{new}"), 2, "1.5"),
    ],
)
def test_wrong_usage_is_reported(project, tmp_path, words, code, message):
    places = {"weights": project / "weights", "new": tmp_path / "new"}
    result = fxpipe(
        *("calibrate", "--input", project / "index.csv", "--weights", project / "weights"),
        *(word.format(**places) for word in words),
    )
    assert result.exit_code == code
    assert message in result.output
    assert not (tmp_path / "new").exists()


def test_missing_table_is_reported(project, tmp_path):
    result = fxpipe("calibrate", "--input", "nowhere.csv", "--weights", project / "weights")
    assert result.exit_code == 2
    assert "nowhere.csv: cannot be read" in result.output


@pytest.fixture
def weights(project, tmp_path):
    return shutil.copytree(project / "weights", tmp_path / "weights")


def test_every_bundle_gets_a_card_with_its_provenance(project, weights):
    (weights / "NOTICE.md").write_text("## Licence\n\nAs the pictures allow.\n")
    result = fxpipe("cards", "--weights", weights)
    assert result.exit_code == 0
    names = {entry.name for entry in read_manifest(weights).bundles}
    for name in names:
        card = (weights / name / "README.md").read_text()
        _, spec = contract(weights, name, "fp32")
        assert card.startswith(f"# {name}\n")
        assert "not a medical device" in card
        assert spec.provenance.data in card
        assert spec.provenance.counts["train"] in card
        assert "| `optim.batch_size` | 8 |" in card
        assert "| `preprocess.height_px` | 64 |" in card  # inherited by a specialist
        warned = any(f"> **Warning**: {words}." in card for words in spec.provenance.warnings)
        assert warned == (spec.kind != "trunk")
        assert card.endswith("As the pictures allow.\n")
        if spec.kind != "trunk":
            assert "Not measured yet" in card
        points = spec.operating_points if spec.kind == "fracture" else {}
        for point in points.values():
            assert f"{point.threshold:.4f}" in card
    gathered = (weights / "README.md").read_text()
    assert all(f"({name}/README.md)" in gathered for name in names)
    assert "> **Warning**, fracture-hand: the validation split has " in gathered


def test_cards_show_the_figures_of_the_evaluation(project, weights, tmp_path):
    fxpipe(
        *("evaluate", "--index", project / "index.csv", "--weights", weights, "--quiet"),
        *("--output", tmp_path / "evaluation"),
    )
    file = tmp_path / "evaluation/evaluation.json"
    assert fxpipe("cards", "--weights", weights, "--evaluation", file).exit_code == 0
    figures = json.loads(file.read_text())
    auc = figures["fracture"]["hand"]["in view"]["network"]["auc"]
    card = (weights / "fracture-hand/README.md").read_text()
    assert f"| AUC | {words(Estimate(**auc))} |" in card
    assert f"| AUC | {auc['value']:.3f} " in card
    assert "Few of them" in card
    (weights / "NOTICE.md").write_text("## Licence\n\nAnother.\n")
    again = fxpipe("cards", "--weights", weights)
    assert again.exit_code == 0, again.output
    kept = (weights / "fracture-hand/README.md").read_text()
    assert kept == f"{card}\n## Licence\n\nAnother.\n"
    assert UNMEASURED not in (weights / "README.md").read_text()
    verified = CliRunner().invoke(main, ["weights", "verify", "--weights", str(weights)])
    assert verified.exit_code == 0, verified.output
    figures["facts"]["bundles"]["region"]["sha256"] = "0" * 64
    file.write_text(json.dumps(figures))
    result = fxpipe("cards", "--weights", weights, "--evaluation", file)
    assert result.exit_code == 2
    assert "contains figures for files that are not in" in result.output


def test_card_shows_figures_with_all_looks_and_with_one(project, weights, tmp_path):
    index = project / "index.csv"
    files = {}
    for name, looks in (("all", []), ("first", ["--set", "looks=1"])):
        options = ("evaluate", "--index", index, "--weights", weights, "--quiet", *looks)
        assert fxpipe(*options, "--output", tmp_path / name).exit_code == 0
        files[name] = tmp_path / name / "evaluation.json"
    evaluations = {name: json.loads(file.read_text()) for name, file in files.items()}
    assert evaluations["all"]["facts"]["looks"]["hand"] == 4
    cards = ("cards", "--weights", weights, "--evaluation", files["all"], "--single-look")
    refused = fxpipe(*cards, files["all"])
    assert (refused.exit_code, "expected a single look" in refused.output) == (2, True)
    verified = CliRunner().invoke(main, ["weights", "verify", "--weights", str(weights)])
    assert verified.exit_code == 0, verified.output  # a refusal changes no file
    made = fxpipe(*cards, files["first"])
    assert made.exit_code == 0, made.output
    _, spec = contract(weights, "fracture-hand", "fp32")
    card = (weights / "fracture-hand/README.md").read_text()
    once = evaluations["first"]["fracture"]["hand"]["in view"]["network"]["auc"]
    part = card.partition("**With a single look**")[2]
    assert f"| AUC | {words(Estimate(**once))} |" in part
    assert f"the specialist looks {1 + spec.closer.count} times" in card
    for point in spec.closer.operating_points.values():
        assert f"| {point.threshold:.4f} |" in card
    assert "| hand, in view |" in (weights / "README.md").read_text().partition("single look |")[2]
    assert fxpipe("cards", "--weights", weights).exit_code == 0  # both are kept
    assert (weights / "fracture-hand/README.md").read_text() == card


def test_cards_refuse_to_drop_figures_that_are_not_stored(project, weights, tmp_path):
    fxpipe(
        *("evaluate", "--index", project / "index.csv", "--weights", weights, "--quiet"),
        *("--output", tmp_path / "evaluation"),
    )
    file = tmp_path / "evaluation/evaluation.json"
    assert fxpipe("cards", "--weights", weights, "--evaluation", file).exit_code == 0
    before = {path: path.read_bytes() for path in weights.rglob("README.md")}
    (weights / "evaluation.json").unlink()
    refused = fxpipe("cards", "--weights", weights)
    assert refused.exit_code == 2
    assert "would lose its figures" in refused.stderr
    assert "hint: name it: --evaluation" in refused.stderr
    assert before == {path: path.read_bytes() for path in weights.rglob("README.md")}


def test_figures_of_replaced_files_are_removed_with_a_warning(project, weights, tmp_path):
    fxpipe(
        *("evaluate", "--index", project / "index.csv", "--weights", weights, "--quiet"),
        *("--output", tmp_path / "evaluation"),
    )
    shutil.copy(tmp_path / "evaluation/evaluation.json", tmp_path / "old.json")
    target = tmp_path / "new"
    words = ("calibrate", "--input", project / "index.csv", "--split", "train", "--quiet")
    assert fxpipe(*words, "--weights", weights, "--output", target).exit_code == 0
    shutil.copy(tmp_path / "old.json", target / "evaluation.json")
    result = fxpipe("cards", "--weights", target)
    assert result.exit_code == 0, result.output
    assert "contains figures for files that are not in" in result.stderr
    assert UNMEASURED in (target / "fracture-hand/README.md").read_text()
