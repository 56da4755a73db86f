"""Sets that leak as they come: the index and the audit say so, each in its own words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from layouts import mura
from PIL import Image

from pipeline.cli import main

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = ("IMG0000049", "IMG0000346", "IMG0000511", "IMG0001360", "IMG0001380", "IMG0001938")


def fxpipe(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def multi_region(tmp_path_factory):
    """Class folders whose test pictures are training pictures: as they are, or turned."""
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
                turned = image.convert("L").rotate(90 * (n - 2), expand=True)
            turned.save(tested / f"{n}-rotated1-rotated2.jpg", quality=80)
    for name, word in (("IMG0000764", "not fractured"), ("IMG0002503", "fractured")):
        (root / "val" / word).mkdir(parents=True)
        shutil.copy(SAMPLES / f"{name}.jpg", root / "val" / word / "other.jpg")
    return root


def test_the_index_refuses_the_division_and_counts_both_kinds_of_copy(multi_region, tmp_path):
    words = ("index", "--input", multi_region, "--split", "own")
    words += ("--output", tmp_path / "i.csv")
    refused = fxpipe(*words)
    assert refused.exit_code == 1
    assert "test: of 6 pictures, 3 are in train byte for byte and 6 share a group" in (
        refused.stderr
    )
    assert not (tmp_path / "i.csv").exists()
    assert fxpipe(*words, "--allow-leaks").exit_code == 0


def test_the_audit_finds_what_names_do_not_tell(multi_region, tmp_path):
    """Under names that say nothing, the turned copies are found by their pictures."""
    plain = shutil.copytree(multi_region, tmp_path / "plain")
    for n, path in enumerate(sorted(plain.rglob("*rotated*"))):
        path.rename(path.with_name(f"new{n}.jpg"))
    index = tmp_path / "index.csv"
    words = ("--split", "own", "--allow-leaks", "--output", index)
    told = fxpipe("index", "--input", plain, *words)
    assert told.exit_code == 0, told.output
    assert "3 are in train byte for byte and 3 share a group" in told.output
    result = fxpipe("audit", "--index", index, "--output", tmp_path / "audit", "--quiet")
    assert result.exit_code == 1
    assert "test: 6 of 6 pictures (100.0%) are in train too" in result.stdout
    counts = json.loads((tmp_path / "audit/audit.json").read_text())
    assert counts["leaks"]["near duplicate"] >= 3


def test_pairs_that_an_audit_confirmed_become_groups_and_the_table_leaks_no_more(
    multi_region, tmp_path
):
    plain = shutil.copytree(multi_region, tmp_path / "plain")
    for n, path in enumerate(sorted(plain.rglob("*rotated*"))):
        path.rename(path.with_name(f"new{n}.jpg"))
    # Turned, and with another label.
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


def test_a_patient_of_two_regions_is_on_one_side_and_a_division_by_picture_is_not(tmp_path):
    root = mura(tmp_path)
    index = tmp_path / "index.csv"
    assert fxpipe("index", "--input", root, "--output", index).exit_code == 0
    table = pd.read_csv(index)
    regions = table.groupby("group")["regions"].agg(set)
    assert regions["mura/patient00001"] == {"elbow", "shoulder", "hand"}
    assert (table.groupby("group")["split"].nunique() == 1).all()
    told = fxpipe("index", "--input", root, "--split", "picture", "--output", index)
    assert "share a group with it" in told.output
    result = fxpipe("audit", "--index", index, "--output", tmp_path / "audit", "--quiet")
    assert result.exit_code == 1
    counts = json.loads((tmp_path / "audit/audit.json").read_text())
    assert counts["leaks"]["same group"] > 0
    assert counts["leaks"]["same study"] > 0
