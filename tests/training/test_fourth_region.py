"""A fourth region, added with only the table entry of docs/contributing.md and data.

The entry is added to a copy of both packages. A separate process then indexes generated pictures,
trains very small networks, exports, runs and evaluates them.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import numpy as np
import pandas as pd
import pytest
from bundles import paint, write_png
from click.testing import CliRunner
from factories import dicom, dicom_file
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from tables import sample
from tiny_networks import write_bundles

from pipeline.cli import main
from stages.data.index import write_index

ROOT = Path(__file__).parents[2]
SIDE_PX = 64
PARTS = ("elbow", "hand", "shoulder", "knee", "spine")
KNEE = "72696002"
"""SNOMED CT code of the knee."""

END_OF_TABLE = '\n)\n"""The supported regions'
COMMANDS = """
import json, sys
from pipeline.cli import main
for words, expected in json.load(sys.stdin):
    code = main(words, standalone_mode=False) or 0
    if code != expected:
        sys.exit(f"{' '.join(words)}: exit code {code}, expected {expected}")
"""

TINY = (
    "train.arch='test_resnet'",
    "train.device='cpu'",
    "train.precision='32-true'",
    "data.workers=0",
    "data.cache='cache'",
    "optim.batch_size=8",
    "optim.ema_decay=0.8",
    "optim.unlabelled_share=0.2",
    "augment.draw='none'",
    "calibration_views=0",
)
REGION = (
    *TINY,
    "preprocess.height_px=64",
    "preprocess.width_px=64",
    "preprocess.frame='whole'",
    "model.cut='layer4.0'",
    "train.trainable_from='stem'",
    "optim.epochs=6",
    "optim.fresh_lr=4e-3",
    "density.views=0",
    "density.neighbours=1",
    "density.refused=0.0",
    "density.dimensions=8",
)
FRACTURE = (
    *(word for word in TINY if "arch" not in word and "unlabelled" not in word),
    "train.trainable_from='layer4.0'",
    "optim.epochs=3",
    "optim.lr=1e-3",
    "closer.count=0",
)


def picture(part: str, fractured: bool, seed: int) -> NDArray[np.uint8]:
    """(64, 64) uint8: a limb with stripes; their direction is the part, fine stripes a fracture."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] + random.uniform(0, 12, (2, 1, 1))
    limb = np.exp(-(((np.arange(SIDE_PX) - SIDE_PX / 2) / 20) ** 2))
    angle = np.pi / 4 * PARTS.index(part)
    wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / (5 if fractured else 11))
    if part == "spine":
        wave = random.uniform(-1, 1, wave.shape)
    values = 30 + 180 * limb * (0.5 + 0.4 * wave) + random.normal(0, 3, wave.shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def fill(home: Path) -> None:
    """Write pictures for training, pictures for a run, and pictures without a region."""
    seed = 0
    for part in PARTS[:-1]:
        for label, word in enumerate(("not fractured", "fractured")):
            for n in range(14):
                seed += 1
                file = home / f"data/{part}/{word}/patient{seed:04d}/{n}.png"
                file.parent.mkdir(parents=True)
                Image.fromarray(picture(part, bool(label), seed)).save(file)
    (home / "negatives").mkdir()
    for n in range(20):
        Image.fromarray(picture("spine", False, 500 + n)).save(home / f"negatives/{n}.png")
    (home / "in").mkdir()
    for n in range(6):
        ds = dicom(picture("knee", n % 2 == 1, 900 + n), bits=8, SOPInstanceUID=f"2.25.{n + 1}",
                   BodyPartExamined="KNEE")  # fmt: skip
        (home / f"in/knee{n}.dcm").write_bytes(dicom_file(ds))
    Image.fromarray(picture("hand", False, 990)).save(home / "in/hand.png")


def extended(home: Path) -> Path:
    """Copy both packages to ``home`` and add the entry of the page to the table."""
    for package in ("pipeline", "stages"):
        shutil.copytree(ROOT / package, home / package,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    page = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")
    (entry,) = re.findall(r"^```python\n(Region\(.*?\))\n```$", page, re.DOTALL | re.MULTILINE)
    table = home / "pipeline/regions.py"
    text = table.read_text(encoding="utf-8")
    assert text.count(END_OF_TABLE) == 1
    added = indent(f"{entry},", "    ")
    table.write_text(text.replace(END_OF_TABLE, f"\n{added}{END_OF_TABLE}"), encoding="utf-8")
    return home


def settings(words: tuple[str, ...]) -> list[str]:
    return [word for setting in words for word in ("--set", setting)]


OF_THREE = "run --input painted --weights weights3 --output results3 --device cpu --quiet"
"""A run with weights for three regions."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command has run, with their output in ``output.txt``."""
    home = tmp_path_factory.mktemp("knee")
    code = extended(tmp_path_factory.mktemp("code"))
    fill(home)
    write_bundles(home / "weights3")
    write_png(home / "painted/hand.png", {"hand": 0.9}, {"hand": 0.8})
    write_png(home / "painted/plain.png", {})
    knee = dicom(paint({"hand": 0.9}), bits=8, BodyPartExamined="KNEE")
    (home / "painted/knee.dcm").write_bytes(dicom_file(knee))
    older = (("hand", "in/hand.png"), ("none", "negatives/0.png"))
    write_index(
        [sample(str(home / path), regions=region) for region, path in older], home / "older.csv"
    )
    first = ["--input", "data", "--negatives", "negatives", "--parts", "4", "--quiet"]
    index, loose = ["--index", "index.csv"], ["--quiet", "--allow-leaks"]  # stripes are similar
    commands = [
        (["--help"], 0),
        (["index", *first, "--output", "index.csv"], 0),
        (["train-stage", "region", *index, "--init", "none", *loose, *settings(REGION)], 0),
        (["train-stage", "fracture", "--region", "knee", *index, *loose,
          *settings(FRACTURE)], 0),
        (["export", *index, "--weights", "weights", "--precision", "fp32",
          "--set", "pictures=12"], 0),
        (["run", "--input", "in", "--weights", "weights", "--output", "results", "--device", "cpu",
          "--dicom-out", "objects", "--identifiers", "keep", "--fhir", "--report",
          "--heatmaps", "all"], 0),
        (["evaluate", *index, "--weights", "weights", "--device", "cpu", "--quiet"], 0),
        (OF_THREE.split(), 0),
        (["train-stage", "region", "--index", "older.csv", "--output", "runs/older"], 1),
    ]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(code), "COLUMNS": "100", "OMP_NUM_THREADS": "1"},
        input=json.dumps(commands), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    (home / "output.txt").write_text(result.stdout + result.stderr, encoding="utf-8")
    return home


def rows(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return {row["path"]: row for row in csv.DictReader(opened)}


def test_table_of_pictures_contains_it(home):
    table = pd.read_csv(home / "index.csv")
    assert table["regions"].value_counts().to_dict() == {
        "elbow": 28, "hand": 28, "shoulder": 28, "knee": 28, "none": 20,
    }  # fmt: skip
    assert set(table["known_regions"]) == {"elbow;hand;shoulder;knee"}


def test_older_table_without_it_is_refused(home):
    output = (home / "output.txt").read_text(encoding="utf-8")
    assert "negatives/0.png: regions are 'none', but the row was made when fxpipe" in output
    assert not (home / "runs/older").exists()


def test_help_and_bundles_contain_it(home):
    output = " ".join((home / "output.txt").read_text(encoding="utf-8").split())
    assert "radiographs of elbow, hand, shoulder and knee: a second reader" in output
    bundles = json.loads((home / "weights/manifest.json").read_text())["bundles"]
    assert {bundle["name"] for bundle in bundles} == {"trunk", "region", "fracture-knee"}


@pytest.fixture(scope="module")
def judged(home: Path) -> list[dict[str, str]]:
    """The rows of knee pictures with a verdict, which are most of them."""
    table = rows(home / "results/results.csv")
    assert len(table) == 7
    judged = [r for r in table.values() if r["status"] == "ok" and r["path"] != "hand.png"]
    assert 4 <= len(judged) <= 6
    return judged


def test_pictures_of_it_are_routed_and_have_a_verdict(judged):
    for row in judged:
        assert "knee" in row["regions"].split(";")  # in so small a network other regions fire too
        assert row["region"] == "knee"
        assert row["header_effect"] in ("agreed", "helped")
        assert row["verdict_knee"] == row["verdict"] != ""
        assert float(row["p_knee"]) > max(float(row[f"p_{name}"]) for name in PARTS[:3])


def test_dicom_objects_fhir_resources_and_page_contain_it(home, judged):
    reports = sorted((home / "objects").glob("*-report.dcm"))
    overlays = list((home / "objects").glob("*-knee-overlay.dcm"))
    assert len(reports) == len(overlays) == len(judged)
    for report in reports:
        elements = dcmread(report).iterall()
        assert KNEE in [element.value for element in elements if element.keyword == "CodeValue"]
    bundle = json.loads((home / "results/results.fhir.json").read_text())
    sites = [
        entry["resource"]["bodySite"]["coding"][0]
        for entry in bundle["entry"]
        if entry["resource"]["resourceType"] == "Observation"
    ]
    assert {(site["code"], site["display"]) for site in sites} == {(KNEE, "Knee")}
    assert len(sites) >= len(judged)  # the hand may have a verdict too
    page = (home / "results/report.html").read_text(encoding="utf-8")
    assert '"regions":["elbow","hand","shoulder","knee"]' in page


def test_evaluation_has_its_figures(home):
    figures = json.loads((home / "evaluation/evaluation.json").read_text())
    knee = figures["fracture"]["knee"]["in view"]
    assert 0 < knee["positives"] < knee["pictures"]
    assert knee["network"]["auc"]["value"] is not None
    assert "knee" in figures["region"]["confusion"]["in_view"]
    assert (home / "evaluation/roc.png").is_file()


def test_weights_of_three_regions_give_the_same_results(home, monkeypatch):
    monkeypatch.chdir(home)
    words = OF_THREE.replace("results3", "here").split()
    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0
    of_three, of_four = rows(home / "here/results.csv"), rows(home / "results3/results.csv")
    assert of_three["knee.dcm"]["header_effect"] == "vetoed"
    for name, row in of_four.items():
        added = {key: row.pop(key) for key in ("p_knee", "verdict_knee", "probability_knee")}
        assert set(added.values()) == {""}
        assert row | {"elapsed_ms": ""} == of_three[name] | {"elapsed_ms": ""}
