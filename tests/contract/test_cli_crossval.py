"""``fxpipe crossval`` from the command line."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from command_line import fxpipe
from conftest import TINY
from PIL import Image
from tables import fracatlas_folder
from tiny_networks import write_bundles

from pipeline.domain import REGIONS


@pytest.fixture(scope="module")
def home(data, tmp_path_factory):
    home = tmp_path_factory.mktemp("crossval")
    assert fxpipe("index", "--input", data, "--output", home / "index.csv").exit_code == 0
    return home


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """As ``home``, but the pictures of every second group come from another machine."""
    home = tmp_path_factory.mktemp("machines")
    source = fracatlas_folder(home / "fracatlas", per_cell=20)
    for _, row in pd.read_csv(source / "labels.csv").iterrows():
        if int(row["group"][-3:] if row["truncated"] == 0 else 0) % 2:
            file = source / "images" / row["image_id"]
            with Image.open(file) as picture:
                lower = picture.crop((0, 6, 64, 57))
            lower.save(file, quality=95)
    assert fxpipe("index", "--input", source, "--output", home / "index.csv").exit_code == 0
    return home


def crossval(home, *words):
    tiny = [w for s in (*TINY, "optim.epochs=1") if "preprocess" not in s for w in ("--set", s)]
    return fxpipe(
        *("crossval", *words, "--index", home / "index.csv", "--folds", "3", "--quiet"),
        *(*tiny, "--set", f"data.cache='{home / 'cache'}'"),
    )


def test_folds_are_trained_once_and_pooled_and_used_by_the_specialist(home):
    size = [w for s in TINY if "preprocess" in s for w in ("--set", s)]
    region = ("region", "--init", "none", "--output", home / "region", *size)
    first = crossval(home, *region, "--only", "1")
    assert first.exit_code == 0, first.output
    assert "folds 1 of 3" in first.output
    assert "region accuracy" in first.output
    stamp = (home / "region/fold-1/best.safetensors").stat().st_mtime_ns
    again = crossval(home, *region, "--only", "1")
    assert again.stdout == first.stdout
    assert (home / "region/fold-1/best.safetensors").stat().st_mtime_ns == stamp
    summary = json.loads((home / "region/result.json").read_text())
    pooled = pd.read_csv(home / "region/predictions.csv")
    test_names = (
        pd.read_csv(home / "index.csv").query("split == 'test'")["path"].map(lambda p: p[-14:])
    )
    assert summary["pictures"] == len(pooled) > 0
    assert not set(pooled["path"]) & set(test_names)

    hand = ("fracture", "--region", "hand", "--from", home / "region", "--output", home / "hand")
    specialist = crossval(home, *hand, "--only", "1")
    assert specialist.exit_code == 0, specialist.output
    assert "hand in view" in specialist.output
    missing = crossval(home, *hand, "--only", "2")
    assert missing.exit_code == 2
    assert "fold-2: no finished region run" in missing.output


def test_missing_fold_is_wrong_usage(home):
    result = crossval(home, "region", "--only", "4")
    assert result.exit_code == 2
    assert "there are 3 folds" in result.output


def test_figures_of_a_held_out_acquisition_are_in_the_cards(machines, tmp_path):
    size = [w for s in TINY if "preprocess" in s for w in ("--set", s)]
    region = ("region", "--init", "none", "--output", machines / "region", *size)
    result = crossval(machines, *region, "--by", "acquisition", "--only", "2")
    assert result.exit_code == 0, result.output
    assert "folds 2 of 2" in result.output
    assert "left out: fracatlas 1.25, fold 2" in result.output
    assert "0 group(s) of several acquisitions" in result.output
    summary = json.loads((machines / "region/result.json").read_text())
    assert (summary["by"], summary["names"]) == (
        "acquisition", ["fracatlas 1.00", "fracatlas 1.25"],
    )  # fmt: skip
    pooled = pd.read_csv(machines / "region/predictions.csv")
    for path in pooled["path"]:
        with Image.open(machines / path) as picture:
            assert picture.size == (64, 51)
    too_many = crossval(machines, *region, "--by", "acquisition", "--only", "3")
    assert too_many.exit_code == 2
    assert "there are 2 folds" in too_many.output

    for name in ("trunk", "region", *(f"fracture-{name}" for name in REGIONS)):
        (tmp_path / "weights" / name).mkdir(parents=True)
    write_bundles(tmp_path / "weights")
    cards = fxpipe("cards", "--weights", tmp_path / "weights", "--tried", machines / "region")
    assert cards.exit_code == 0, cards.output
    accuracy = summary["by_fold"][0]["figures"]["region accuracy"]
    for name in ("README.md", "fracture-hand/README.md", "region/README.md"):
        card = (tmp_path / "weights" / name).read_text()
        assert "## Leave one acquisition out" in card
        line = f"| region | fracatlas 1.25 | {len(pooled)} | region accuracy | "
        assert f"{line}{accuracy['value']:.3f} [" in card
    assert "acquisition" not in (tmp_path / "weights/trunk/README.md").read_text()


def test_pictures_of_one_machine_cannot_be_split_by_acquisition(home):
    result = crossval(home, "region", "--init", "none", "--by", "acquisition")
    assert result.exit_code == 2
    assert "1 acquisition(s) with at least" in result.output
    assert "fracatlas 1.00" in result.output
