"""Types of fracture: training from the table, export, and output in a run."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from tables import SIDE_PX, picture, sample

from pipeline.cli import main
from pipeline.report.columns import COLUMNS, TYPES
from pipeline.report.results_schema import LineModel
from stages.data.index import read_index, write_index
from stages.export.reload import load_again
from stages.samples import Sample

NAMES = ("transverse", "oblique")
ARCHS = {"sigmoid": "cnn_gap", "softmax": "resnet10t"}
"""Backbone by activation; only the ResNet has a heatmap and closer looks."""
SMALL = (
    *("preprocess.height_px=64", "preprocess.width_px=64", "train.trainable_from=stem"),
    *("train.device=cpu", "train.precision=32-true", "data.workers=0", "optim.epochs=12"),
    *("optim.batch_size=8", "optim.fresh_lr=3e-3", "optim.lr=3e-3", "optim.ema_decay=0.9"),
    *("augment.draw=none", "calibration_views=0", "preprocess.frame=whole", "closer.count=1"),
)


def drawn(kinds: tuple[str, ...], seed: int) -> NDArray[np.uint8]:
    """(64, 64) uint8: a bar with a horizontal dark line, an oblique one, both, or none."""
    canvas = picture("hand", False, seed)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    shift = int(np.random.default_rng(seed).integers(-6, 7))
    lines = {"transverse": y - 18 - shift, "oblique": y - x - 14 - shift}
    for kind in kinds:
        canvas[np.abs(lines[kind]) < 4] = 20
    return canvas


def table(home: Path, both: bool) -> Path:
    """Pictures of either type (or both) and without a fracture; some have unknown types."""
    choices = [("transverse",), ("oblique",), *([NAMES] if both else [])]
    samples: list[Sample] = []
    for split, count in (("train", 72), ("val", 32), ("test", 24)):
        for n in range(count):
            kinds = choices[n // 2 % len(choices)] if n % 2 else ()
            path = home / f"{split}-{n}.png"
            Image.fromarray(drawn(kinds, seed=len(samples))).save(path)
            types = "" if split == "train" and n % 9 == 1 else ";".join(kinds)
            samples.append(sample(str(path), split=split, label=int(bool(kinds)), types=types,
                                  sha256=path.name, group=path.name))  # fmt: skip
    write_index(samples, home / "index.csv")
    return home / "index.csv"


def fxpipe(*words: object) -> None:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module", params=["sigmoid", "softmax"])
def trained(request, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param)
    index = table(home, both=request.param == "sigmoid")
    settings = [*SMALL, f"types={json.dumps(NAMES)}", f"types_activation={request.param}"]
    settings.append(f"train.arch={ARCHS[request.param]}")
    fxpipe(
        *("train-stage", "fracture", "--region", "all", "--init", "none", "--quiet"),
        *("--index", index, "--output", home / "runs/all", "--allow-leaks"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    fxpipe(
        *("export", "--run", home / "runs/all", "--index", index, "--weights", home / "weights"),
        *("--precision", "int8", "--precision", "fp16", "--precision", "fp32"),
        *("--set", "pictures=12", "--set", "calibration_pictures=8"),
    )
    return home, request.param


def run(home: Path, *words: object) -> tuple[list[dict], list[dict]]:
    """Records of the test pictures as JSON lines and as rows."""
    (home / "in").mkdir(exist_ok=True)
    for path in home.glob("test-*.png"):
        (home / "in" / path.name).write_bytes(path.read_bytes())
    results = home / "results"
    fxpipe(
        *("run", "--input", home / "in", "--output", results, "--weights", home / "weights"),
        *("--device", "cpu", *words),
    )
    lines = [json.loads(line) for line in (results / "results.jsonl").read_text().splitlines()]
    with (results / "results.csv").open(newline="", encoding="utf-8") as file:
        return lines, list(csv.DictReader(file))


def test_types_are_trained_calibrated_and_in_every_output(trained):
    home, activation = trained
    result = json.loads((home / "runs/all/result.json").read_text())
    assert (result["types"]["labels"], result["types"]["activation"]) == (list(NAMES), activation)
    assert all(value != 1.0 for value in result["types"]["temperature"])
    for figures in result["types_test"].values():
        assert figures["pictures"] == 12
        assert figures["auc"]["value"] > 0.8

    lines, rows = run(home, "--report", "--fhir")
    truth = {s.path.name: s for s in read_index(home / "index.csv").of("test")}
    values: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for line, row in zip(lines, rows, strict=True):
        LineModel.model_validate(line)
        assert list(row) == [*COLUMNS, TYPES]
        (finding,) = line["findings"]
        if finding["verdict"] == "negative":
            assert "types" not in finding
            assert row[TYPES] == ""
            continue
        types = finding["types"]
        assert set(types) == set(NAMES)
        assert {n: float(p) for n, p in (x.split("=") for x in row[TYPES].split(";"))} == types
        if activation == "softmax":
            assert sum(types.values()) == pytest.approx(1, abs=1e-5)
        for name in NAMES if truth[line["path"]].label else ():
            values[name, name in truth[line["path"]].type_names].append(types[name])
    compared = [name for name in NAMES if values[name, True] and values[name, False]]
    assert compared  # after so short a training some are negative and have no types
    for name in compared:
        assert np.mean(values[name, True]) > np.mean(values[name, False])
    fhir = json.loads((home / "results/results.fhir.json").read_text())
    assert "if fractured: oblique" in json.dumps(fhir)


def test_exported_network_is_reloaded_with_its_types(trained):
    home, activation = trained
    (run,) = load_again(home / "weights")
    assert run.network.labels == ("fracture", *NAMES)
    assert run.stage.types is not None
    assert run.stage.types.activation == activation
    (graph,) = (home / "weights").glob("*/fp32.onnx")
    outputs = [port.name for port in onnx.load(graph).graph.output]
    mapped = ["evidence"] if activation == "softmax" else []
    assert outputs == ["logits", "probabilities", *mapped, "type_logits", "type_probabilities"]


def test_card_contains_the_types(trained):
    home, activation = trained
    fxpipe("cards", "--weights", home / "weights")
    (card,) = home.glob("weights/*/README.md")
    assert f"**Types of fracture** ({activation}): transverse, oblique;" in card.read_text()


def test_types_without_a_training_picture_are_refused(tmp_path):
    index = table(tmp_path, both=False)
    result = CliRunner().invoke(
        main,
        [
            *("train-stage", "fracture", "--region", "all", "--init", "none"),
            *("--index", str(index), "--output", str(tmp_path / "run"), "--allow-leaks"),
            *("--set", 'types=["spiral", "oblique"]', *(w for s in SMALL for w in ("--set", s))),
        ],
    )
    assert result.exit_code != 0
    assert "some with and some without spiral; found " in result.output
    assert not (tmp_path / "run").exists()
