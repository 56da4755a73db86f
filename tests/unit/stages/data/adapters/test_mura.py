"""MURA: patients, studies, labels and splits from folder names and CSV files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import layouts
import pytest
from layouts import by_place, cut, draw, sheet

from pipeline.errors import IndexFaultsError
from stages.data.adapters.layouts import recognise
from stages.data.adapters.mura import read_mura


@pytest.fixture(scope="module")
def mura(tmp_path_factory):
    return layouts.mura(tmp_path_factory.mktemp("mura"))


def test_rows_have_patient_study_label_and_split(mura):
    rows = by_place(read_mura(mura), mura)
    assert len(rows) == 2 * (2 * 8 + 1)  # no row for ._image1.png
    row = rows["train/XR_ELBOW/patient00001/study1_positive/image2.png"]
    assert (row.regions, row.label, row.label_kind) == ("elbow", 1, "abnormality")
    assert row.group == "mura/patient00001"
    assert row.study == "mura/patient00001/XR_ELBOW/study1"
    assert row.origin == "mura/XR_ELBOW"
    assert row.split == "train"
    assert rows["valid/XR_WRIST/patient00004/study1_negative/image1.png"].split == "val"


def test_patient_with_several_regions_is_one_group(mura):
    rows = [row for row in read_mura(mura) if row.group == "mura/patient00001"]
    assert {row.regions for row in rows} == {"elbow", "hand", "shoulder"}
    assert len({row.study for row in rows}) == 3


def test_folder_names_are_read_as_body_parts(mura):
    rows = [row for row in read_mura(mura) if row.origin == "mura/XR_WRIST"]
    assert {(row.regions, row.label) for row in rows} == {("hand", 0), ("hand", 1)}


@pytest.mark.parametrize(
    ("folder", "regions"),
    [
        ("XR_ELBOW", "elbow"),
        ("XR_HAND", "hand"),
        ("XR_SHOULDER", "shoulder"),
        ("XR_FINGER", "hand"),
        ("XR_WRIST", "hand"),
        ("XR_FOREARM", "elbow?;hand?"),
        ("XR_HUMERUS", "elbow?;shoulder?"),
    ],
)
def test_every_region_folder_is_known(tmp_path, folder, regions):
    draw(tmp_path / f"MURA/train/{folder}/patient00001/study1_positive/image1.png", 1)
    (row,) = read_mura(tmp_path / "MURA")
    assert (row.regions, row.origin) == (regions, f"mura/{folder}")


@pytest.mark.parametrize("place", [".", "..", "train", "valid"])
def test_mura_is_recognised_from_its_root_its_parent_and_its_splits(mura, place):
    source = mura / place if place != ".." else mura.parent
    assert recognise(source) == "mura"
    parts = {row.path.relative_to(row.path.parents[4]).parts[0] for row in read_mura(source)}
    assert parts == ({place} if place in ("train", "valid") else {"train", "valid"})


@pytest.mark.parametrize("part", ["train", "valid"])
def test_one_region_folder_is_read_separately(mura, part):
    source = mura / part / "XR_ELBOW"
    assert recognise(source) == "mura"
    expected = [r for r in read_mura(mura / part) if r.origin == "mura/XR_ELBOW"]
    assert read_mura(source) == expected
    assert expected


def test_region_folder_copied_out_of_mura_has_no_split(tmp_path, mura):
    source = shutil.copytree(mura / "valid/XR_ELBOW", tmp_path / "XR_ELBOW")
    assert recognise(source) == "mura"
    copied, original = read_mura(source), read_mura(mura / "valid/XR_ELBOW")
    assert {row.split for row in copied} == {"train"}
    assert [(r.group, r.study, r.label) for r in copied] == [
        (r.group, r.study, r.label) for r in original
    ]


def test_rows_are_the_same_without_the_csv_files(tmp_path, mura):
    bare = layouts.mura(tmp_path, tables=False)
    assert [replace(r, path=Path()) for r in read_mura(bare)] == [
        replace(r, path=Path()) for r in read_mura(mura)
    ]


def test_missing_listed_picture_is_a_fault(tmp_path):
    root = layouts.mura(tmp_path)
    place = "train/XR_ELBOW/patient00001/study1_positive/image1.png"
    (root / place).unlink()
    draw(root / "train/XR_ELBOW/stray.png", 99)
    with pytest.raises(IndexFaultsError) as caught:
        read_mura(root)
    assert len(caught.value.faults) == 2
    assert f"train_image_paths.csv: picture {root / place} not found" in caught.value.faults
    assert any("stray.png: outside a study folder" in fault for fault in caught.value.faults)


def test_faults_of_the_csv_files_are_listed(tmp_path):
    root = layouts.mura(tmp_path)
    sheet(
        root / "valid_labeled_studies.csv",
        [["MURA-v1.1/valid/XR_HAND/patient00009/study1_positive/", 1], ["elsewhere/", 1],
         ["MURA-v1.1/valid/XR_ELBOW/patient00004/study1_negative/", "no"]],
    )  # fmt: skip
    with pytest.raises(IndexFaultsError) as caught:
        read_mura(root)
    for words in ("line 1: study ", "line 2: no valid/ in 'elsewhere/'", "line 3: label is 'no'"):
        assert any(words in fault for fault in caught.value.faults), words


def test_study_is_excluded_if_table_and_folder_contradict(tmp_path, caplog):
    root = layouts.mura(tmp_path)
    table = root / "train_labeled_studies.csv"
    place = "train/XR_ELBOW/patient00001/study1_positive"
    table.write_text(table.read_text().replace(f"{place}/,1", f"{place}/,0"))
    rows = by_place(read_mura(root), root)
    excluded = {name for name, row in rows.items() if row.split == "excluded"}
    assert excluded == {f"{place}/image1.png", f"{place}/image2.png"}
    assert {rows[name].flags for name in excluded} == {"label_conflict"}
    assert "2 pictures: train_labeled_studies.csv contradicts the folder" in caplog.text


def test_broken_picture_is_flagged_and_excluded(tmp_path):
    root = layouts.mura(tmp_path)
    cut(root / "train/XR_ELBOW/patient00001/study1_positive/image1.png")
    broken = [row for row in read_mura(root) if row.flags]
    assert [(row.flags, row.split, row.label) for row in broken] == [("truncated", "excluded", 1)]
