"""CSV files as data sets: columns by option or by name, labels, regions, faults by line."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from layouts import cut, draw, sheet
from tables import sample

from pipeline.domain import REGIONS
from pipeline.errors import IndexFaultsError, UsageError
from stages.data.adapters import table as table_layout
from stages.data.adapters.columns import parse_columns
from stages.data.adapters.table import read_listed
from stages.data.index import read_index, write_index


def table(home, head, *rows):
    """Write a table to ``home``, with pictures a.png to d.png in the same folder."""
    for seed, name in enumerate("abcd"):
        draw(home / f"{name}.png", seed)
    return sheet(home / "my.csv", [head, *rows])


def test_columns_are_assigned_by_option(tmp_path, caplog):
    source = table(
        tmp_path,
        ["Image", "Finding", "PatientID", "Exam", "BodyPart", "Set", "notes", "Marks"],
        ["a.png", "yes", "p1", "e1", "wrist", "Training", "hardware; cast", "0 0 0.5 1"],
        ["b.png", "no", "p1", "e2", "KNEE", "validation", "", ""],
        ["c.png", "", "p2", "e3", "", "test", "", ""],
    )
    columns = parse_columns(
        ("path=Image,label=Finding, group=PatientID", "study=Exam,regions=BodyPart,split=Set",
         "flags=notes,boxes=Marks")
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "stages"):
        rows = read_listed(source, columns, "fracture")
    first, second, third = rows
    assert (first.label, first.label_kind, first.regions) == (1, "fracture", "hand")
    assert (first.group, first.study, first.split) == ("p1", "e1", "train")
    assert (first.flags, first.boxes) == ("hardware; cast", ((0.0, 0.0, 0.5, 1.0),))
    assert (second.label, second.regions, second.split) == (0, "none", "val")
    assert (third.label, third.label_kind, third.regions) == (None, "", "unknown")
    assert "label=Finding" in caplog.text
    assert "no group" not in caplog.text


def test_columns_recognised_by_name_are_logged(tmp_path, caplog):
    source = table(tmp_path, ["FileName", "Fractured", "Patient ID"], ["a.png", "1", "p"])
    with caplog.at_level(logging.INFO, "stages"):
        (row,) = read_listed(source)
    assert (row.label, row.group) == (1, "p")
    assert row.label_kind == "fracture"  # from the name of the column
    assert "path=FileName (by name), label=Fractured (by name)" in caplog.text
    assert "group=Patient ID (by name)" in caplog.text


@pytest.mark.parametrize(
    ("head", "words", "stated", "kinds"),
    [
        ("label", ("1", "0"), "", {"unknown"}),
        ("label", ("1", "0"), "abnormality", {"abnormality"}),
        ("label", ("fractured", "normal"), "", {"fracture"}),
        ("class", ("abnormal", "normal"), "", {"abnormality"}),
        ("fracture", ("TRUE", "False"), "", {"fracture"}),
        ("abnormality", ("yes", "no"), "", {"abnormality"}),
        ("fracture", ("yes", "no"), "abnormality", {"abnormality"}),
    ],
)
def test_label_kind_of_a_table(tmp_path, head, words, stated, kinds):
    source = table(tmp_path, ["path", head], ["a.png", words[0]], ["b.png", words[1]])
    rows = read_listed(source, label_kind=stated)
    assert [row.label for row in rows] == [1, 0]
    assert {row.label_kind for row in rows} == kinds


def test_every_fault_of_a_table_is_listed_with_its_line(tmp_path):
    source = table(
        tmp_path,
        ["path", "label", "split", "boxes"],
        ["a.png", "maybe", "train", ""],
        ["lost.png", "1", "train", ""],
        ["b.png", "-1", "later", ""],
        ["c.png", "1", "", "0 0 2 2"],
        ["", "1", "", ""],
    )
    with pytest.raises(IndexFaultsError) as caught:
        read_listed(source)
    expected = (
        "line 2: label is 'maybe', expected", f"line 3: picture {tmp_path / 'lost.png'} not found",
        "line 4: label is '-1'", "line 4: split is 'later'", "line 5: boxes are '0 0 2 2'",
        "line 6: path is empty",
    )  # fmt: skip
    for words in expected:
        assert any(words in fault for fault in caught.value.faults), words


def test_unknown_region_words_are_counted(tmp_path, caplog):
    rows = [["a.png", "1", "gizmo"], ["b.png", "1", "gizmo"], ["c.png", "1", "thing"]]
    source = table(tmp_path, ["path", "label", "region"], *rows)
    assert {row.regions for row in read_listed(source)} == {"unknown"}
    assert "'gizmo' 2 times, 'thing' 1 times" in caplog.text


def test_table_without_groups_gives_each_picture_a_separate_group_and_warns(tmp_path, caplog):
    source = table(tmp_path, ["path", "label"], ["a.png", "1"], ["b.png", "0"])
    assert [row.group for row in read_listed(source)] == ["a.png", "b.png"]
    assert "2 pictures have no group" in caplog.text
    assert "may not be disjoint by patient" in caplog.text


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"patth": "path"}, "'patth' is not a field"),
        ({"label": "Lable"}, "no column 'Lable' for label, found path, label"),
    ],
)
def test_unknown_columns_are_refused(tmp_path, columns, words):
    source = table(tmp_path, ["path", "label"], ["a.png", "1"])
    with pytest.raises(UsageError, match=words) as caught:
        read_listed(source, columns)
    assert "did you mean" in caught.value.hint


def test_table_without_paths_is_refused(tmp_path):
    source = table(tmp_path, ["scan", "label"], ["a.png", "1"])
    with pytest.raises(UsageError, match="no known column holds paths, found scan, label"):
        read_listed(source)
    assert [row.path.name for row in read_listed(source, {"path": "scan"})] == ["a.png"]


@pytest.mark.parametrize("words", ["path", "path=", "=x", "path=a,path=b"])
def test_malformed_columns_option_is_refused(words):
    with pytest.raises(UsageError, match="--columns"):
        parse_columns((words,))


def test_every_listed_file_has_a_row(tmp_path):
    source = table(tmp_path, ["path", "label"], ["a.png", "1"], ["notes.txt", "0"])
    (tmp_path / "notes.txt").write_text("x")
    cut(tmp_path / "a.png")
    flags = [(row.flags, row.split) for row in read_listed(source)]
    assert flags == [("truncated", "excluded"), ("unreadable", "excluded")]


def test_index_is_read_with_all_its_columns(tmp_path):
    rows = []
    for seed, (regions, label) in enumerate([("elbow;hand?", 1), ("none", None), ("unknown", 0)]):
        path = draw(tmp_path / "pictures" / f"{seed}.png", seed)
        rows.append(
            sample(
                f"g{seed}", path=path, regions=regions, label=label,
                label_kind="" if label is None else "abnormality", study=f"s{seed}",
                split=("train", "excluded", "test")[seed], origin=f"o{seed}", flags="hardware;x",
                boxes=((0.1, 0.2, 0.3, 0.4),), sha256="",
            )
        )  # fmt: skip
    write_index(rows, tmp_path / "index.csv")
    reread = read_listed(tmp_path / "index.csv")
    assert [replace(row, sha256="") for row in reread] == rows
    write_index(reread, tmp_path / "index.csv")
    assert list(read_index(tmp_path / "index.csv").samples) == reread
    draw(tmp_path / "pictures" / "1.png", 99)
    with pytest.raises(IndexFaultsError, match=r"line 3: .*1\.png has changed"):
        read_listed(tmp_path / "index.csv")


def test_unknown_label_kind_is_refused(tmp_path):
    source = table(tmp_path, ["path", "label", "label_kind"], ["a.png", "1", "broken"])
    with pytest.raises(IndexFaultsError, match="line 2: label_kind is 'broken'"):
        read_listed(source)


def test_known_regions_default_to_the_first_three_in_an_index_and_to_all_in_other_tables(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(table_layout, "REGIONS", (*REGIONS, "knee"))
    plain = table(tmp_path, ["path", "label", "regions"], ["a.png", "1", "hand"])
    (row,) = read_listed(plain)
    assert row.known_regions == "elbow;hand;shoulder;knee"
    write_index([replace(row, known_regions="elbow;hand;shoulder")], tmp_path / "index.csv")
    (row,) = read_listed(tmp_path / "index.csv")
    assert row.known_regions == "elbow;hand;shoulder"
    write_index([replace(row, known_regions="elbow;hand;shoulder;foot")], tmp_path / "index.csv")
    (row,) = read_listed(tmp_path / "index.csv")
    assert row.known_regions == "elbow;hand;shoulder;foot"
