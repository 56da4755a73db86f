"""Class folders: labels, regions, splits and groups from the names of folders and files."""

from __future__ import annotations

import layouts
import pytest
from layouts import by_place, cut, draw

from pipeline.errors import IndexFaultsError
from stages.data.adapters.folders import is_folders, read_folders


def tree(home, *places):
    """Write a small, different picture at each place of ``home/set``; return that folder."""
    for seed, place in enumerate(places):
        draw(home / "set" / place, seed)
    return home / "set"


@pytest.mark.parametrize(
    ("folders", "regions"),
    [("arm/elbow", "elbow"), ("arm", "elbow?;shoulder?"), ("elbow/hand", "unknown")],
)
def test_folder_with_definite_regions_takes_precedence(tmp_path, folders, regions):
    root = tree(tmp_path, f"{folders}/fractured/1.png", f"{folders}/not fractured/2.png")
    assert {row.regions for row in read_folders(root)} == {regions}


def test_multi_region_data_set(tmp_path):
    root = layouts.multi_region(tmp_path)
    rows = by_place(read_folders(root), root)
    rotated = rows["train/not fractured/3-rotated1-rotated2.jpg"]
    original = rows["train/not fractured/3.jpg"]
    assert (original.label, original.label_kind, original.regions) == (0, "fracture", "unknown")
    assert rotated.group == original.group
    assert rotated.group != rows["train/fractured/3.jpg"].group
    assert rows["test/fractured/0.jpg"].split == "test"
    assert rows["val/fractured/1.jpg"].split == "val"
    assert (
        rows["val/fractured/1.jpg"].group == rows["train/fractured/1-rotated1-rotated2.jpg"].group
    )
    assert {row.origin for row in rows.values()} == {root.name}
    assert len(rows) == 2 * (8 * 2 + 1)  # all files except Thumbs.db


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("Fracture", "No_Fracture"), "fracture"),
        (("fractured", "normal"), "fracture"),
        (("fractured", "healthy"), "fracture"),
        (("abnormal", "normal"), "abnormality"),
        (("positive", "negative"), "unknown"),
        (("1", "0"), "unknown"),
    ],
)
def test_label_kind_of_class_folders(tmp_path, words, kind):
    root = tree(tmp_path, f"a/{words[0]}/1.png", f"a/{words[1]}/2.png")
    assert is_folders(root)
    rows = sorted(read_folders(root), key=lambda row: row.path.name)
    assert [(row.label, row.label_kind) for row in rows] == [(1, kind), (0, kind)]


def test_word_takes_its_kind_from_the_nearest_sibling(tmp_path):
    root = tree(
        tmp_path,
        *("a/fractured/1.png", "a/normal/2.png", "b/abnormal/3.png", "b/normal/4.png"),
        "c/normal/5.png",
    )
    rows = by_place(read_folders(root), root)
    assert rows["a/normal/2.png"].label_kind == "fracture"
    assert rows["b/normal/4.png"].label_kind == "abnormality"
    assert rows["c/normal/5.png"].label_kind == "abnormality"  # normal, as opposed to abnormal


def test_label_kind_option_applies_to_words_without_a_kind(tmp_path):
    root = tree(tmp_path, "positive/1.png", "negative/2.png")
    assert {row.label_kind for row in read_folders(root, "fracture")} == {"fracture"}
    draw(root / "fractured/3.png", 3)
    with pytest.raises(IndexFaultsError, match="words mean fracture, but --label-kind is abnormal"):
        read_folders(root, "abnormality")


def test_intermediate_folders_give_region_patient_and_origin(tmp_path):
    root = tree(
        tmp_path,
        *("Training/wrist/clinic/not fractured/1.png", "Testing/shoulder/fractured/2.png"),
        *("valid/XR_ELBOW/fractured/patient7/3.png", "valid/XR_HAND/fractured/Patient 8/3.png"),
        *("validation/knee/fractured/4.png", "validation/set 2/fractured/5.png"),
    )
    rows = {row.path.name + row.regions: row for row in read_folders(root)}
    assert set(rows) == {
        *("1.pnghand", "2.pngshoulder", "3.pngelbow", "3.pnghand", "4.pngnone", "5.pngunknown")
    }
    first = rows["1.pnghand"]
    assert (first.split, first.label, first.origin) == ("train", 0, "set/wrist/clinic")
    assert rows["2.pngshoulder"].split == "test"
    assert rows["3.pngelbow"].group == "set/patient7"
    assert rows["3.pngelbow"].origin == "set/XR_ELBOW"
    assert rows["5.pngunknown"].split == "val"


def test_pictures_outside_class_folders_have_no_label(tmp_path, caplog):
    root = tree(tmp_path, "train/fractured/1.png", "train/normal/2.png", "train/3.png", "4.png")
    rows = by_place(read_folders(root), root)
    assert [rows[name].label for name in ("train/3.png", "4.png")] == [None, None]
    assert rows["4.png"].label_kind == ""
    assert "2 pictures are outside the class folders: 4.png, 3.png" in caplog.text
    assert (
        "1 pictures are outside the split folders and are used for training: 4.png" in caplog.text
    )
    assert rows["4.png"].split == "train"


def test_digits_are_classes_only_as_a_pair_of_0_and_1(tmp_path):
    root = tree(tmp_path, *(f"grade/{n}/x.png" for n in range(3)), "two/0/y.png", "two/1/z.png")
    rows = by_place(read_folders(root), root)
    assert [rows[f"grade/{n}/x.png"].label for n in range(3)] == [None] * 3
    assert [rows["two/0/y.png"].label, rows["two/1/z.png"].label] == [0, 1]
    root = tree(tmp_path / "b", "normal/1/x.png", "fractured/0/x.png")  # 0 and 1 are not classes
    rows = by_place(read_folders(root), root)
    assert [rows["normal/1/x.png"].label, rows["fractured/0/x.png"].label] == [0, 1]


def test_contradictory_class_folders_are_a_fault(tmp_path):
    root = tree(tmp_path, "positive/not fractured/1.png", "fractured/2.png")
    with pytest.raises(IndexFaultsError) as caught:
        read_folders(root)
    assert len(caught.value.faults) == 1
    assert "'positive' and 'not fractured' contradict" in caught.value.faults[0]


@pytest.mark.parametrize(
    "name",
    [
        *("7-rotated1-rotated2-rotated3", "7_flip", "7-hflip", "7_rot90", "7_mirrored", "7_aug_3"),
        *(
            "7 - Copy",
            "7 - Copy (2)",
            "7_copy",
            "7.rf.0a1b2c3d",
            "7_flip-rotated1",
            "7 (2)",
            "7(1)",
            "7-rotated2 (1)",
            "7-rotated1-rotated3(2)",
        ),
    ],
)
def test_augmented_copies_are_in_the_group_of_the_original(tmp_path, name):
    root = tree(tmp_path, f"train/fractured/{name}.png", "test/fractured/7.png")
    assert len({row.group for row in read_folders(root)}) == 1


@pytest.mark.parametrize("name", ["71", "7_2", "a7", "7-rotated1b", "copy", "flip"])
def test_similar_names_are_not_augmented_copies(tmp_path, name):
    root = tree(tmp_path, f"train/fractured/{name}.png", "test/fractured/7.png")
    assert len({row.group for row in read_folders(root)}) == 2


def test_set_numbered_in_brackets_is_not_one_group(tmp_path):
    root = tree(tmp_path, *(f"fractured/image ({n}).png" for n in range(4)))
    assert len({row.group for row in read_folders(root)}) == 4


def test_broken_pictures_have_a_row_and_text_files_do_not(tmp_path):
    root = tree(tmp_path, "fractured/1.png", "normal/2.png")
    cut(root / "fractured/1.png")
    (root / "normal/3.jpg").write_bytes(b"")
    (root / "README.txt").write_text("x")
    rows = by_place(read_folders(root), root)
    assert {name: (row.flags, row.split) for name, row in rows.items()} == {
        "fractured/1.png": ("truncated", "excluded"),
        "normal/2.png": ("", "train"),
        "normal/3.jpg": ("unreadable", "excluded"),
    }
