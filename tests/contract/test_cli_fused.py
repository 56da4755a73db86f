"""``fxpipe export --fused``, and every command that accepts or refuses its folder."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import paint, standard_specs
from command_line import fxpipe, run_python
from PIL import Image
from tables import sample
from tiny_networks import write_bundles

from pipeline.config import RunConfig
from pipeline.domain import REGIONS
from pipeline.progress import Silent
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import read_manifest
from stages.bundles.cost import count
from stages.data.index import read_index, write_index
from stages.evaluation.predictions import predict
from stages.export.triton import config_text

ROOT = Path(__file__).parents[2]
WEIGHTS, SAMPLES = ROOT / "weights", ROOT / "samples"
SECTION = "## One graph for another host"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The shipped int8 weights, fused in a separate process that checks its imports."""
    home = tmp_path_factory.mktemp("shipped")
    words = ["export", "--fused", "--precision", "int8", "--triton", "models"]
    words += ["--weights", str(WEIGHTS)]
    code = (
        "import sys; from pipeline.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as end: code = end.code\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(code)"
    )
    result = run_python(code, cwd=home)
    assert result.returncode == 0, result.stderr
    return home, result.stdout


def rows(weights, source, output, code=1):
    """Rows of a run by path, without the elapsed time; one of the samples is truncated."""
    result = fxpipe(
        *("run", "--input", source, "--weights", weights, "--output", output, "--quiet"),
        *("--device", "cpu", "--set", "looks=1"),  # like a fused graph
    )
    assert result.exit_code == code, result.output
    with (output / "results.csv").open(newline="", encoding="utf-8") as file:
        return {row.pop("path"): {**row, "elapsed_ms": ""} for row in csv.DictReader(file)}


def test_shipped_weights_are_fused_without_training_run_and_torch(shipped):
    home, output = shipped
    (line,) = [line for line in output.splitlines() if line.startswith("fused int8: ")]
    assert re.match(r"fused int8: 15 pictures, \|Δprobability\| max 0\.000", line)
    assert line.endswith("0 flips outside that margin: passed")
    assert "fused: written; use it with `fxpipe run --weights fused`" in output
    assert {p.relative_to(home / "fused").as_posix() for p in (home / "fused").rglob("*.*")} == {
        *("manifest.json", "NOTICE.md", "fused/int8.onnx")
    }


def test_run_has_the_same_rows(shipped, tmp_path):
    home, _ = shipped
    (entry,) = read_manifest(home / "fused").bundles
    staged = rows(WEIGHTS, SAMPLES, tmp_path / "staged")
    fused = rows(home / "fused", SAMPLES, tmp_path / "fused")
    assert fused.keys() == staged.keys()
    for path, row in fused.items():
        other = staged[path]
        digests = json.loads(row.pop("bundle_digests"))
        assert digests == (
            {"fused": entry.sha256} if json.loads(other.pop("bundle_digests")) else {}
        )
        for name, value in row.items():
            if value and name.startswith(("p_", "probability")):
                assert float(value) == pytest.approx(float(other[name]), abs=1e-4)
            else:
                assert value == other[name], (path, name)


def test_example_in_the_documentation_prints_the_shown_output(shipped, tmp_path):
    home, _ = shipped
    page = (ROOT / "docs/weights.md").read_text(encoding="utf-8")
    section = page.split(SECTION)[1].split("\n## ")[0]
    code, output = re.search(r"```python\n(.*?)```\s+```\n(.*?)```", section, re.DOTALL).groups()
    assert len([line for line in code.splitlines() if line]) == 10
    (tmp_path / "fused").symlink_to(home / "fused")
    (tmp_path / "samples").symlink_to(SAMPLES)
    result = run_python(code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    number = re.compile(r"\d\.\d+")
    assert number.sub("", result.stdout) == number.sub("", output)
    actual, expected = (np.array(number.findall(text), float) for text in (result.stdout, output))
    np.testing.assert_allclose(actual, expected, atol=0.01)  # processors round differently
    (row,) = rows(home / "fused", SAMPLES / "IMG0001380.jpg", tmp_path / "out", code=0).values()
    assert float(row["p_hand"]) == pytest.approx(actual[1], abs=1e-3)
    assert float(row["probability_hand"]) == pytest.approx(actual[4], abs=1e-3)


def test_triton_model_is_the_same_file(shipped):
    home, output = shipped
    model = home / "models/fxpipe"
    assert "`tritonserver --model-repository models`" in output
    assert {p.relative_to(model).as_posix() for p in model.rglob("*.*")} == {
        *("config.pbtxt", "NOTICE.md", "1/model.onnx")
    }
    content = (model / "1/model.onnx").read_bytes()
    assert content == (home / "fused/fused/int8.onnx").read_bytes()
    text = (model / "config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "fxpipe"\nbackend: "onnxruntime"\nmax_batch_size: 8\n' in text
    assert "dynamic_batching {\n  preferred_batch_size: [ 4, 8 ]\n" in text
    port = (
        r'(input|output) \{\n  name: "(\w+)"\n  data_type: TYPE_FP32\n  dims: \[ ([\d, ]+) \]\n'
        r"(?:  reshape \{ shape: \[ \] \}\n)?\}"
    )
    config_ports = {(kind, name): dims for kind, name, dims in re.findall(port, text)}
    graph = onnx.load_from_string(content).graph
    ports = [("input", p) for p in graph.input] + [("output", p) for p in graph.output]
    graph_ports = {
        (kind, p.name): ", ".join(str(d.dim_value) for d in p.type.tensor_type.shape.dim[1:]) or "1"
        for kind, p in ports
    }
    assert config_ports == graph_ports
    assert config_ports["input", "image"] == "1, 320, 320"
    assert text.count("{") == text.count("}") == len(config_ports) + 1 + text.count("reshape")


def test_triton_config_declares_one_density_per_picture(painted):
    text = config_text(onnx.load(painted / "fused/fused/fp32.onnx"), 8)
    assert (
        'output {\n  name: "region_density"\n  data_type: TYPE_FP32\n  dims: [ 1 ]\n'
        "  reshape { shape: [ ] }\n}\n"
    ) in text


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """Painted bundles, a table with pictures for them, and the fused folder."""
    home = tmp_path_factory.mktemp("painted")
    (home / "samples").mkdir()
    random = np.random.default_rng(0)
    samples = []
    for n in range(24):
        regions, fractures = (
            dict(zip(REGIONS, row, strict=True)) for row in random.uniform(0.2, 0.9, (2, 3))
        )
        path = home / "samples" / f"{n:02}.png"
        Image.fromarray(paint(regions, fractures)).save(path)
        split = "train" if n < 4 else "test"
        samples.append(
            sample(str(path), split=split, label=n % 2, regions=REGIONS[n % 3], group=str(n))
        )
    write_index(samples, home / "index.csv")
    write_bundles(home / "weights")
    result = fxpipe(
        *("export", "--fused", "--weights", home / "weights", "--output", home / "fused")
    )
    assert result.exit_code == 0, result.output
    assert "fused fp32: 24 pictures" in result.output  # samples/ is next to the weights
    return home


def test_evaluate_accepts_the_folder_and_has_the_same_predictions(painted, tmp_path):
    result = fxpipe(
        *("evaluate", "--index", painted / "index.csv", "--weights", painted / "fused", "--quiet"),
        *("--output", tmp_path / "out", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "out/evaluation.json").read_text())["facts"]
    (entry,) = read_manifest(painted / "fused").bundles
    names = {"region", *(f"fracture-{region}" for region in REGIONS)}
    assert {name: bundle["sha256"] for name, bundle in facts["bundles"].items()} == dict.fromkeys(
        names, entry.sha256
    )
    config = RunConfig(device="cpu")
    table = read_index(painted / "index.csv")
    staged, fused = (
        predict(table.samples, painted, load_bundles(painted / name, config), config, Silent())[0]
        for name in ("weights", "fused")
    )
    numbers = staged.select_dtypes("number").columns
    np.testing.assert_allclose(fused[numbers], staged[numbers], atol=1e-4)
    assert fused.drop(columns=numbers).equals(staged.drop(columns=numbers))
    assert staged["peak_x_hand"].notna().all()


def test_cost_is_that_of_all_stages(painted):
    staged, fused = count(painted / "weights"), count(painted / "fused")
    assert fused.parameters == staged.parameters
    # Only the trunk counts: the heads of the painted networks have no convolution.
    assert fused.multiply_adds == staged.multiply_adds > 0


@pytest.mark.parametrize(
    "words",
    [
        ("calibrate", "--input", "{home}/index.csv", "--weights", "{fused}", "--output", "{new}"),
        ("cards", "--weights", "{fused}"),
        (
            *("ensemble", "--region", "hand", "--index", "{home}/index.csv", "--output", "{new}"),
            *("--member", "{fused}", "--member", "{home}/weights"),
        ),
        (
            *("train-stage", "region", "--index", "{home}/index.csv", "--output", "{new}"),
            *("--init", "{fused}", "--allow-leaks", "--set", "train.device=cpu"),
        ),
        (
            *("train-stage", "fracture", "--region", "hand", "--index", "{home}/index.csv"),
            *("--from", "{fused}", "--output", "{new}", "--allow-leaks"),
        ),
        (
            "export",
            "--fused",
            "--weights",
            "{fused}",
            "--input",
            "{home}/samples",
            "--output",
            "{new}",
        ),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_that_need_separate_stages_refuse_a_fused_graph(painted, tmp_path, words):
    places = {"home": painted, "fused": painted / "fused", "new": tmp_path / "new"}
    before = sorted((painted / "fused").rglob("*"))
    result = fxpipe(*(word.format(**places) for word in words))
    assert result.exit_code == 3, result.output
    assert f"{painted / 'fused'}: found a fused graph, expected a weights folder" in result.output
    assert sorted((painted / "fused").rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--output", "{new}"), "--output: no effect without --fused"),
        (("--triton", "{new}", "--input", "{home}"), "--input and --triton: no effect without"),
        (("--fused", "--set", "pictures=2", "--index", "x"), "--index and --set: no effect"),
        (("--fused", "--output", "{home}"), "not empty"),
        (("--fused", "--weights", "{home}/weights/.."), "there is no samples/ next to"),
        (("--fused", "--weights", "{home}/weights", "--run", "{home}/none"), "no finished run"),
        (("--fused", "--input", "{home}/nowhere"), "nowhere"),
    ],
)
def test_wrong_usage_is_reported(painted, tmp_path, words, message):
    places = {"home": painted, "new": tmp_path / "new"}
    output = [] if "--output" in words or words[0] != "--fused" else ["--output", places["new"]]
    result = fxpipe("export", *(word.format(**places) for word in words), *output)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not places["new"].exists()


def test_named_runs_are_exported_first(project, data, tmp_path):
    result = fxpipe(
        *("export", "--fused", "--run", project / "runs", "--index", project / "index.csv"),
        *("--weights", tmp_path / "weights", "--output", tmp_path / "fused"),
        *("--input", data / "images", "--precision", "fp32"),
        *("--set", "pictures=2", "--set", "calibration_pictures=2"),
    )
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'weights'}: 4 run(s) exported" in result.output
    assert "fused fp32: 100 pictures" in result.output
    assert {e.name for e in read_manifest(tmp_path / "fused").bundles} == {"fused"}


def test_no_run_is_exported_into_a_fused_folder(project, data, tmp_path):
    import shutil

    order = ("--weights", project / "weights", "--input", data / "images", "--precision", "fp32")
    assert fxpipe("export", "--fused", *order, "--output", tmp_path / "fused").exit_code == 0
    before = shutil.copytree(tmp_path / "fused", tmp_path / "before")
    result = fxpipe(
        *("export", "--run", project / "runs/hand", "--index", project / "index.csv"),
        *("--weights", tmp_path / "fused", "--precision", "fp32"),
    )
    assert result.exit_code == 3, result.output
    assert "found a fused graph" in result.output
    assert read_manifest(tmp_path / "fused") == read_manifest(before)


def test_stages_of_a_fused_graph_keep_their_names(painted):
    weights = load_bundles(painted / "fused", RunConfig(device="cpu"))
    names = [contract.name for contract in standard_specs()[1:]]
    assert [stage.spec.name for stage in weights.stages] == names
    assert [network.bundle for network in weights.networks] == ["fused"] * len(names)
