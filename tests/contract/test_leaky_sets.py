"""Data sets with leaks between their splits are reported by ``index`` and ``audit``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_line import fxpipe
from layouts import mura
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = ("IMG0000049", "IMG0000346", "IMG0000511", "IMG0001360", "IMG0001380", "IMG0001938")


@pytest.fixture(scope="module")
def multi_region(tmp_path_factory):
    """Class folders with training pictures in test: identical copies, or rotated ones."""
    root = tmp_path_factory.mktemp("set") / "Bone_Fracture_Binary_Classification"
    for n, name in enumerate(NAMES):
        word = "fractured" if n % 2 else "not fractured"
        place = root / "train" / word
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / f"{name}.jpg", place / f"{n}.jpg")
        tested = root / "test" / word
        tested.mkdir(parents=True, exist_ok=True)
        if n < 3:
            shutil.copy(place / f"{n}.jpg", tested / f"{n}.jpg")
        else:
            with Image.open(place / f"{n}.jpg") as image:
                rotated = image.convert("L").rotate(90 * (n - 2), expand=True)
            rotated.save(tested / f"{n}-rotated1-rotated2.jpg", quality=80)
    for name, word in (("IMG0000764", "not fractured"), ("IMG0002503", "fractured")):
        (root / "val" / word).mkdir(parents=True)
        shutil.copy(SAMPLES / f"{name}.jpg", root / "val" / word / "other.jpg")
    return root


def test_index_refuses_the_split_and_counts_both_kinds_of_copy(multi_region, tmp_path):
    words = (
        *("index", "--input", multi_region, "--split", "own"),
        *("--output", tmp_path / "i.csv"),
    )
    refused = fxpipe(*words)
    assert refused.exit_code == 1
    assert "test: of 6 pictures, 3 are in train byte for byte and 6 share a group" in (
        refused.stderr
    )
    assert not (tmp_path / "i.csv").exists()
    assert fxpipe(*words, "--allow-leaks").exit_code == 0


def test_audit_finds_rotated_copies_by_content(multi_region, tmp_path):
    """Without informative names, rotated copies are found by their content."""
    plain = shutil.copytree(multi_region, tmp_path / "plain")
    for n, path in enumerate(sorted(plain.rglob("*rotated*"))):
        path.rename(path.with_name(f"new{n}.jpg"))
    index = tmp_path / "index.csv"
    words = ("--split", "own", "--allow-leaks", "--output", index)
    indexed = fxpipe("index", "--input", plain, *words)
    assert indexed.exit_code == 0, indexed.output
    assert "3 are in train byte for byte and 3 share a group" in indexed.output
    result = fxpipe("audit", "--index", index, "--output", tmp_path / "audit", "--quiet")
    assert result.exit_code == 1
    assert "test: 6 of 6 pictures (100.0%) are in train too" in result.stdout
    counts = json.loads((tmp_path / "audit/audit.json").read_text())
    assert counts["leaks"]["near duplicate"] >= 3


def test_pairs_of_an_audit_become_groups_without_leaks(multi_region, tmp_path):
    plain = shutil.copytree(multi_region, tmp_path / "plain")
    for n, path in enumerate(sorted(plain.rglob("*rotated*"))):
        path.rename(path.with_name(f"new{n}.jpg"))
    # A rotated copy with another label.
    shutil.copy(plain / "test/fractured/new0.jpg", plain / "test/not fractured/other.jpg")
    index, audit = tmp_path / "index.csv", tmp_path / "audit"
    words = ("index", "--input", plain, "--parts", "3", "--output", index)
    assert fxpipe(*words).exit_code == 0
    checked = ("audit", "--index", index, "--output", audit, "--quiet")
    first = fxpipe(*checked)
    assert first.exit_code == 1, first.output
    assert f"`fxpipe index … --groups-from {audit / 'pairs.csv'}`" in first.stdout
    joined = fxpipe(*words, "--groups-from", audit / "pairs.csv")
    assert joined.exit_code == 0, joined.output
    assert "because they share the same exposure" in joined.output
    groups = pd.read_csv(index).groupby("group")["path"].agg(set)
    pairs = pd.read_csv(audit / "pairs.csv")
    twins = pairs[pairs["kind"].isin(("same file", "near duplicate"))]
    for one, other in zip(twins["path_1"], twins["path_2"], strict=True):
        assert any({one, other} <= members for members in groups)
    assert fxpipe(*checked).exit_code == 0


def test_pairs_of_another_data_set_are_refused(multi_region, tmp_path):
    (tmp_path / "pairs.csv").write_text("kind,path_1,path_2\nnear duplicate,x.jpg,y.jpg\n")
    words = ("index", "--input", multi_region, "--output", tmp_path / "index.csv")
    result = fxpipe(*words, "--groups-from", tmp_path / "pairs.csv")
    assert result.exit_code == 1
    assert f"line 2: no picture {tmp_path / 'x.jpg'} in the data set" in result.stderr
    (tmp_path / "pairs.csv").write_text("path,label\n")
    result = fxpipe(*words, "--groups-from", tmp_path / "pairs.csv")
    assert "no column 'kind': not the pairs.csv of an audit" in result.stderr


def test_patient_with_several_regions_is_in_one_split_except_in_a_split_by_picture(tmp_path):
    root = mura(tmp_path)
    index = tmp_path / "index.csv"
    assert fxpipe("index", "--input", root, "--output", index).exit_code == 0
    table = pd.read_csv(index)
    regions = table.groupby("group")["regions"].agg(set)
    assert regions["mura/patient00001"] == {"elbow", "shoulder", "hand"}
    assert (table.groupby("group")["split"].nunique() == 1).all()
    by_picture = fxpipe("index", "--input", root, "--split", "picture", "--output", index)
    assert "share a group with it" in by_picture.output
    result = fxpipe("audit", "--index", index, "--output", tmp_path / "audit", "--quiet")
    assert result.exit_code == 1
    counts = json.loads((tmp_path / "audit/audit.json").read_text())
    assert counts["leaks"]["same group"] > 0
    assert counts["leaks"]["same study"] > 0
