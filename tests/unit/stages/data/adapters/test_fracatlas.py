"""FracAtlas, with the labels of this project and as its authors distribute it."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import layouts
import pytest
from layouts import cut, draw, sheet

from pipeline.errors import IndexFaultsError
from stages.data.adapters import fracatlas_regions
from stages.data.adapters.fracatlas import read_fracatlas
from stages.data.adapters.fracatlas_regions import REGIONS_IN_VIEW, known_pictures

HAND, LEG = "IMG0000006.jpg", "IMG0000000.jpg"  # elbow and leg in fracatlas_regions.csv


def test_shipped_regions_are_complete():
    known = known_pictures()
    assert len(known) == 2017
    assert {picture.region for picture in known.values()} == set(REGIONS_IN_VIEW)
    assert sum(picture.truncated for picture in known.values()) == 33
    assert sum(picture.label_conflict for picture in known.values()) == 18
    assert (files("stages.data.adapters") / fracatlas_regions.FILE.name).is_file()
    assert "CC BY 4.0" in (fracatlas_regions.__doc__ or "")


def test_shipped_regions_are_package_data():
    text = (Path(__file__).parents[5] / "pyproject.toml").read_text()
    assert '"stages.data.adapters" = ["*.csv"]' in text


def test_listed_picture_has_the_shipped_region_and_group(tmp_path):
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
def test_unlisted_picture_has_only_regions_that_the_authors_columns_imply(tmp_path, parts, regions):
    row = {"image_id": "IMG9999999.jpg", **dict.fromkeys(parts, 1)}
    (sample,) = read_fracatlas(layouts.fracatlas(tmp_path, [row]))
    assert sample.regions == regions
    assert sample.group == "fracatlas/IMG9999999.jpg"


@pytest.mark.parametrize("annotations", ["COCO", "VOC", "YOLO"])
def test_boxes_are_read_from_each_format(tmp_path, annotations):
    rows = [{"image_id": "a.jpg", "hand": 1, "fractured": 1}, {"image_id": "b.jpg", "hand": 1}]
    root = layouts.fracatlas(tmp_path, rows, annotations)
    boxes = {row.path.name: row.boxes for row in read_fracatlas(root)}
    assert boxes == {"a.jpg": ((0.25, 0.125, 0.75, 0.625),), "b.jpg": ()}


def test_coco_boxes_take_precedence_over_yolo(tmp_path):
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


def test_picture_is_excluded_if_folder_and_authors_table_contradict(tmp_path):
    root = layouts.fracatlas(tmp_path, [{"image_id": n, "leg": 1} for n in ("a.jpg", "b.jpg")])
    (root / "images/Non_fractured/a.jpg").rename(root / "images/Fractured/a.jpg")
    rows = {row.path.name: row for row in read_fracatlas(root)}
    assert (rows["a.jpg"].flags, rows["a.jpg"].split) == ("label_conflict", "excluded")
    assert (rows["b.jpg"].flags, rows["b.jpg"].split) == ("", "train")


def test_known_and_new_truncated_files_are_excluded(tmp_path):
    known = "IMG0004119.jpg"
    root = layouts.fracatlas(tmp_path, [{"image_id": n, "hand": 1} for n in (known, "new.jpg")])
    cut(root / "images/Non_fractured" / known)
    cut(root / "images/Non_fractured/new.jpg")
    flags = [(row.flags, row.split) for row in read_fracatlas(root)]
    assert flags == [("truncated", "excluded")] * 2


def test_every_fault_of_the_authors_table_is_listed(tmp_path):
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


def test_picture_missing_from_the_authors_table_has_a_row(tmp_path, caplog):
    root = layouts.fracatlas(tmp_path, [{"image_id": "a.jpg", "leg": 1}])
    draw(root / "images/Fractured/extra.jpg", 77)
    rows = {row.path.name: row for row in read_fracatlas(root)}
    assert (rows["extra.jpg"].label, rows["extra.jpg"].regions) == (1, "unknown")
    assert "does not list 1 pictures: extra.jpg" in caplog.text


def test_both_forms_give_the_same_rows(tmp_path):
    """Pictures with shipped labels, in the authors' form and in this project's form."""
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
    first = {row.path.name: replace(row, path=Path()) for row in read_fracatlas(ours)}
    second = {row.path.name: replace(row, path=Path()) for row in read_fracatlas(theirs)}
    assert first == second
