"""Data sets whose layout is published: MURA, and FracAtlas as its authors distribute it."""

from __future__ import annotations

import csv
import logging
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import layouts
import pytest
from layouts import cut, draw, sheet
from tables import fracatlas_folder

from pipeline.errors import IndexFaultsError, InputMissingError, UsageError
from stages.data.adapters import fracatlas_regions
from stages.data.adapters.fracatlas import read_fracatlas
from stages.data.adapters.fracatlas_regions import REGIONS_IN_VIEW, known_pictures
from stages.data.adapters.layouts import LAYOUTS, read_layout, recognise
from stages.data.adapters.mura import read_mura
from stages.data.adapters.negatives import read_negatives
from stages.data.adapters.pictures import look_at, unwatched, walk


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    """Records reach ``caplog`` though a command of another test has configured logging."""
    monkeypatch.setattr(logging.getLogger("stages"), "propagate", True)


def by_place(rows, root):
    return {row.path.resolve().relative_to(root.resolve()).as_posix(): row for row in rows}


# ---------------------------------------------------------------------------------- recognition


def written(home):
    """A data set in every layout, by the layout's name."""
    pictures = [draw(home / "own" / f"{n}.png", n) for n in range(2)]
    return {
        "mura": layouts.mura(home / "a"),
        "fracatlas": layouts.fracatlas(home / "b", [{"image_id": "a.jpg", "fractured": 1}]),
        "folders": layouts.multi_region(home / "c"),
        "dicom": layouts.studies(home / "d", [{}]),
        "table": sheet(home / "own" / "my.csv", [["path", "label"], [pictures[0].name, 1]]),
    }


def test_every_layout_is_recognised_and_read(tmp_path):
    found = written(tmp_path)
    assert set(found) == set(LAYOUTS)
    for name, source in found.items():
        assert recognise(source) == name
        rows = read_layout(name, source, unwatched, {})
        assert rows
        assert all(row.sha256 and row.group and row.origin for row in rows)


def test_our_own_fracatlas_is_recognised(tmp_path):
    assert recognise(fracatlas_folder(tmp_path / "data", per_cell=1)) == "fracatlas"


def test_what_is_not_plain_is_refused_with_what_was_found_and_what_there_is(tmp_path):
    draw(tmp_path / "odd" / "set_b" / "1.png", 1)
    (tmp_path / "odd" / "notes.txt").write_text("x")
    with pytest.raises(UsageError) as caught:
        recognise(tmp_path / "odd")
    text = str(caught.value)
    assert "found set_b/, notes.txt" in text
    for name, layout in LAYOUTS.items():
        assert f"- {name}: {layout.description}" in text
    assert "--layout" in caught.value.hint


def test_numbered_folders_are_no_classes(tmp_path):
    for n in ("0", "1", "2"):
        draw(tmp_path / "grades" / n / "a.png", int(n))
    with pytest.raises(UsageError):
        recognise(tmp_path / "grades")


def test_a_layout_that_is_not_there_is_refused(tmp_path):
    draw(tmp_path / "odd" / "1.png", 1)
    for name in ("mura", "fracatlas"):
        with pytest.raises(InputMissingError, match="expected"):
            read_layout(name, tmp_path / "odd", unwatched, {})
    with pytest.raises(InputMissingError, match="expected a CSV file"):
        read_layout("table", tmp_path / "odd", unwatched, {})


def test_an_option_of_another_layout_is_refused(tmp_path):
    root = layouts.mura(tmp_path)
    with pytest.raises(
        UsageError, match="--label-kind applies to layout table or folders or dicom"
    ):
        read_layout("mura", root, unwatched, {"label_kind": "fracture"})


# ---------------------------------------------------------------------------------- pictures


def test_a_broken_file_is_told_by_how_it_is_broken(tmp_path):
    whole = draw(tmp_path / "whole.jpg", 1)
    assert look_at(whole).flag == ""
    half = cut(draw(tmp_path / "half.jpg", 2))
    assert look_at(half).flag == "truncated"
    # The name must not decide.
    (tmp_path / "truncated.jpg").write_bytes(b"no picture at all")
    assert look_at(tmp_path / "truncated.jpg").flag == "unreadable"
    (tmp_path / "read me.txt").write_text("hello")
    assert look_at(tmp_path / "read me.txt").flag == "not_a_picture"
    assert look_at(tmp_path / "absent.jpg").sha256 == ""


def test_hidden_files_are_skipped_and_counted(tmp_path, caplog):
    draw(tmp_path / "a.png", 1)
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/b.png", ".git/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.INFO, "stages"):
        assert [path.name for path in walk(tmp_path)] == ["a.png"]
    assert [r.getMessage() for r in caplog.records] == [f"{tmp_path}: 5 hidden files were skipped"]


def test_a_broken_negative_is_excluded_and_a_read_me_has_no_row(tmp_path, caplog):
    draw(tmp_path / "knees" / "a.png", 1)
    cut(draw(tmp_path / "knees" / "b.png", 2))
    (tmp_path / "knees" / "licence.txt").write_text("CC0")
    with caplog.at_level(logging.INFO, "stages"):
        rows = read_negatives(tmp_path / "knees")
    assert [(r.path.name, r.flags, r.split) for r in rows] == [
        ("a.png", "", "train"),
        ("b.png", "truncated", "excluded"),
    ]
    assert "1 files are not pictures and were skipped: licence.txt" in caplog.text
    assert "1 pictures were excluded, the first: b.png" in caplog.text


# ---------------------------------------------------------------------------------- MURA


@pytest.fixture(scope="module")
def mura(tmp_path_factory):
    return layouts.mura(tmp_path_factory.mktemp("mura"))


def test_mura_keeps_patient_study_label_and_division(mura):
    rows = by_place(read_mura(mura), mura)
    assert len(rows) == 2 * (2 * 8 + 1)  # no row for ._image1.png
    one = rows["train/XR_ELBOW/patient00001/study1_positive/image2.png"]
    assert (one.regions, one.label, one.label_kind) == ("elbow", 1, "abnormality")
    assert one.group == "mura/patient00001"
    assert one.study == "mura/patient00001/XR_ELBOW/study1"
    assert one.origin == "mura/XR_ELBOW"
    assert one.split == "train"
    assert rows["valid/XR_WRIST/patient00004/study1_negative/image1.png"].split == "val"


def test_a_patient_of_two_regions_is_one_group(mura):
    rows = [row for row in read_mura(mura) if row.group == "mura/patient00001"]
    assert {row.regions for row in rows} == {"elbow", "hand", "shoulder"}
    assert len({row.study for row in rows}) == 3


def test_folders_of_mura_mean_what_their_words_mean_everywhere(mura):
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
def test_every_folder_of_mura_is_known(tmp_path, folder, regions):
    draw(tmp_path / f"MURA/train/{folder}/patient00001/study1_positive/image1.png", 1)
    (row,) = read_mura(tmp_path / "MURA")
    assert (row.regions, row.origin) == (regions, f"mura/{folder}")


@pytest.mark.parametrize("place", [".", "..", "train", "valid"])
def test_mura_is_found_from_its_root_its_parent_and_its_parts(mura, place):
    source = mura / place if place != ".." else mura.parent
    assert recognise(source) == "mura"
    parts = {row.path.relative_to(row.path.parents[4]).parts[0] for row in read_mura(source)}
    assert parts == ({place} if place in ("train", "valid") else {"train", "valid"})


@pytest.mark.parametrize("part", ["train", "valid"])
def test_one_region_of_mura_is_read_and_checked_by_itself(mura, part):
    source = mura / part / "XR_ELBOW"
    assert recognise(source) == "mura"
    wanted = [r for r in read_mura(mura / part) if r.origin == "mura/XR_ELBOW"]
    assert read_mura(source) == wanted
    assert wanted


def test_one_region_of_mura_taken_out_of_it_has_no_division(tmp_path, mura):
    source = shutil.copytree(mura / "valid/XR_ELBOW", tmp_path / "XR_ELBOW")
    assert recognise(source) == "mura"
    found, wanted = read_mura(source), read_mura(mura / "valid/XR_ELBOW")
    assert {row.split for row in found} == {"train"}
    assert [(r.group, r.study, r.label) for r in found] == [
        (r.group, r.study, r.label) for r in wanted
    ]


def test_mura_without_its_tables_reads_the_same(tmp_path, mura):
    bare = layouts.mura(tmp_path, tables=False)
    assert [replace(r, path=None) for r in read_mura(bare)] == [
        replace(r, path=None) for r in read_mura(mura)
    ]


def test_a_picture_that_mura_lists_and_has_not_is_a_fault(tmp_path):
    root = layouts.mura(tmp_path)
    place = "train/XR_ELBOW/patient00001/study1_positive/image1.png"
    (root / place).unlink()
    draw(root / "train/XR_ELBOW/stray.png", 99)
    with pytest.raises(IndexFaultsError) as caught:
        read_mura(root)
    assert len(caught.value.faults) == 2
    assert f"train_image_paths.csv: picture {root / place} not found" in caught.value.faults
    assert any("stray.png: outside a study folder" in fault for fault in caught.value.faults)


def test_faults_of_muras_tables_are_listed(tmp_path):
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


def test_a_study_whose_table_contradicts_its_folder_is_excluded(tmp_path, caplog):
    root = layouts.mura(tmp_path)
    table = root / "train_labeled_studies.csv"
    place = "train/XR_ELBOW/patient00001/study1_positive"
    table.write_text(table.read_text().replace(f"{place}/,1", f"{place}/,0"))
    rows = by_place(read_mura(root), root)
    excluded = {name for name, row in rows.items() if row.split == "excluded"}
    assert excluded == {f"{place}/image1.png", f"{place}/image2.png"}
    assert {rows[name].flags for name in excluded} == {"label_conflict"}
    assert "2 pictures: train_labeled_studies.csv contradicts the folder" in caplog.text


def test_a_broken_picture_of_mura_is_flagged_and_kept(tmp_path):
    root = layouts.mura(tmp_path)
    cut(root / "train/XR_ELBOW/patient00001/study1_positive/image1.png")
    broken = [row for row in read_mura(root) if row.flags]
    assert [(row.flags, row.split, row.label) for row in broken] == [("truncated", "excluded", 1)]


# ---------------------------------------------------------------------------------- FracAtlas

HAND, LEG = "IMG0000006.jpg", "IMG0000000.jpg"  # elbow and leg in fracatlas_regions.csv


def test_the_regions_that_ship_are_whole():
    known = known_pictures()
    assert len(known) == 2017
    assert {picture.region for picture in known.values()} == set(REGIONS_IN_VIEW)
    assert sum(picture.truncated for picture in known.values()) == 33
    assert sum(picture.label_conflict for picture in known.values()) == 18
    assert (files("stages.data.adapters") / fracatlas_regions.FILE.name).is_file()
    assert "CC BY 4.0" in (fracatlas_regions.__doc__ or "")


def test_the_regions_that_ship_are_part_of_the_package():
    text = (Path(__file__).parents[4] / "pyproject.toml").read_text()
    assert '"stages.data.adapters" = ["*.csv"]' in text


def test_a_picture_that_was_looked_at_has_our_region_and_group(tmp_path):
    root = layouts.fracatlas(
        tmp_path,
        [{"image_id": HAND, "hand": 1, "hardware": 1, "fractured": 1}, {"image_id": LEG, "leg": 1}],
    )
    rows = {row.path.name: row for row in read_fracatlas(root)}
    assert (rows[HAND].regions, rows[HAND].group) == ("elbow", "fracatlas/g0001")
    assert (rows[HAND].label, rows[HAND].label_kind) == (1, "fracture")
    assert (rows[HAND].flags, rows[HAND].origin) == ("hardware", "fracatlas/elbow")
    assert (rows[LEG].regions, rows[LEG].label) == ("none", 0)


@pytest.mark.parametrize(
    ("parts", "regions"),
    [
        ({"shoulder"}, "shoulder"),
        ({"leg"}, "none"),
        ({"leg", "hip"}, "none"),
        ({"hand"}, "unknown"),
        ({"hand", "leg"}, "unknown"),
        ({"hand", "shoulder"}, "elbow?;hand?;shoulder"),
        (set(), "unknown"),
    ],
)
def test_another_picture_shows_what_the_authors_say_for_certain(tmp_path, parts, regions):
    row = {"image_id": "IMG9999999.jpg", **dict.fromkeys(parts, 1)}
    (found,) = read_fracatlas(layouts.fracatlas(tmp_path, [row]))
    assert found.regions == regions
    assert found.group == "fracatlas/IMG9999999.jpg"


@pytest.mark.parametrize("form", ["COCO", "VOC", "YOLO"])
def test_boxes_are_read_from_each_form(tmp_path, form):
    rows = [{"image_id": "a.jpg", "hand": 1, "fractured": 1}, {"image_id": "b.jpg", "hand": 1}]
    found = {r.path.name: r.boxes for r in read_fracatlas(layouts.fracatlas(tmp_path, rows, form))}
    assert found == {"a.jpg": ((0.25, 0.125, 0.75, 0.625),), "b.jpg": ()}


def test_the_best_form_of_boxes_wins(tmp_path):
    root = layouts.fracatlas(tmp_path, [{"image_id": "a.jpg", "fractured": 1}], "COCO")
    yolo = root / "Annotations" / "YOLO" / "a.txt"
    yolo.parent.mkdir()
    yolo.write_text("0 0.9 0.9 0.1 0.1\n")
    (row,) = read_fracatlas(root)
    assert row.boxes == ((0.25, 0.125, 0.75, 0.625),)


@pytest.mark.parametrize("text", ["0 0.5 0.5 0 0.1", "0 0.5 0.5", "0 a b c d"])
def test_broken_annotations_are_faults(tmp_path, text):
    root = layouts.fracatlas(tmp_path, [{"image_id": "a.jpg", "fractured": 1}], "YOLO")
    (root / "Annotations" / "YOLO" / "a.txt").write_text(text)
    with pytest.raises(IndexFaultsError, match=r"a\.txt: invalid boxes"):
        read_fracatlas(root)


def test_a_folder_that_contradicts_the_authors_table_is_excluded(tmp_path):
    root = layouts.fracatlas(tmp_path, [{"image_id": n, "leg": 1} for n in ("a.jpg", "b.jpg")])
    (root / "images/Non_fractured/a.jpg").rename(root / "images/Fractured/a.jpg")
    rows = {row.path.name: row for row in read_fracatlas(root)}
    assert (rows["a.jpg"].flags, rows["a.jpg"].split) == ("label_conflict", "excluded")
    assert (rows["b.jpg"].flags, rows["b.jpg"].split) == ("", "train")


def test_known_and_new_truncated_files_of_fracatlas_are_excluded(tmp_path):
    known = "IMG0004119.jpg"
    root = layouts.fracatlas(tmp_path, [{"image_id": n, "hand": 1} for n in (known, "new.jpg")])
    cut(root / "images/Non_fractured" / known)
    cut(root / "images/Non_fractured/new.jpg")
    found = [(row.flags, row.split) for row in read_fracatlas(root)]
    assert found == [("truncated", "excluded")] * 2


def test_every_fault_of_the_authors_layout_is_listed(tmp_path):
    root = layouts.fracatlas(tmp_path, [{"image_id": n, "hand": 1} for n in ("a.jpg", "b.jpg")])
    with (root / "dataset.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[1][1] = "yes"
    rows.append(["lost.jpg", *["0"] * 12])
    rows.append(rows[2])
    sheet(root / "dataset.csv", rows)
    with pytest.raises(IndexFaultsError) as caught:
        read_fracatlas(root)
    assert len(caught.value.faults) == 3
    for words in (
        "line 2: hand is 'yes'",
        "line 5: b.jpg is already in line 3",
        "line 4: lost.jpg is in",
    ):
        assert any(words in fault for fault in caught.value.faults), words
    sheet(root / "dataset.csv", [["image_id", "hand"], ["a.jpg", 1]])
    with pytest.raises(IndexFaultsError, match="no column 'fractured'"):
        read_fracatlas(root)


def test_a_picture_that_the_authors_do_not_list_has_a_row_all_the_same(tmp_path, caplog):
    root = layouts.fracatlas(tmp_path, [{"image_id": "a.jpg", "leg": 1}])
    draw(root / "images/Fractured/extra.jpg", 77)
    rows = {row.path.name: row for row in read_fracatlas(root)}
    assert (rows["extra.jpg"].label, rows["extra.jpg"].regions) == (1, "unknown")
    assert "does not list 1 pictures: extra.jpg" in caplog.text


def test_both_forms_of_fracatlas_give_the_same_rows(tmp_path):
    """The authors' form of pictures that we labelled, with what their table says of them."""
    known = known_pictures()
    names = [name for name, p in known.items() if p.region in ("elbow", "hand", "leg")][:20]
    whole = [{"image_id": n, "hand": 1, "fractured": i % 2} for i, n in enumerate(names)]
    theirs = layouts.fracatlas(tmp_path / "theirs", whole)
    ours = tmp_path / "ours"
    (ours / "images").mkdir(parents=True)
    for path in (theirs / "images").rglob("*.jpg"):
        shutil.copy(path, ours / "images")
    head = ["image_id", "region", "fractured", "hardware", "group", "truncated", "label_conflict"]
    rows = [
        [r["image_id"], known[r["image_id"]].region, r["fractured"], 0, known[r["image_id"]].group,
         0, int(known[r["image_id"]].label_conflict)]
        for r in whole
    ]  # fmt: skip
    sheet(ours / "labels.csv", [head, *rows])
    boxes = [[r["image_id"], 0.25, 0.125, 0.75, 0.625] for r in whole if r["fractured"]]
    sheet(ours / "boxes.csv", [["image_id", "x0", "y0", "x1", "y1"], *boxes])
    first = {row.path.name: replace(row, path=None) for row in read_fracatlas(ours)}
    second = {row.path.name: replace(row, path=None) for row in read_fracatlas(theirs)}
    assert first == second
