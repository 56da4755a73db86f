"""The index of pictures: splits by group, writing and reading, faults, region vectors."""

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tables import fracatlas_folder, sample

from pipeline.errors import IndexFaultsError, InputMissingError
from stages.data.adapters.fracatlas import read_fracatlas
from stages.data.adapters.negatives import read_negatives
from stages.data.index import assign_splits, find_faults, read_index, read_table, write_index


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fracatlas_folder(tmp_path_factory.mktemp("data") / "fracatlas")


def test_no_group_is_in_two_splits(folder):
    samples = read_fracatlas(folder)
    splits = defaultdict(set)
    for row, split in zip(samples, assign_splits(samples, seed=7), strict=True):
        splits[row.group].add(split)
    assert all(len(names) == 1 for names in splits.values())


def test_splits_keep_the_share_of_each_region_and_label(folder):
    samples = read_fracatlas(folder)
    splits = assign_splits(samples, seed=7)
    for region in ("elbow", "hand", "shoulder"):
        for label in (0, 1):
            held_out = [
                split
                for row, split in zip(samples, splits, strict=True)
                if row.regions == region and row.label == label and split in ("val", "test")
            ]
            assert 2 <= len(held_out) <= 6  # two sevenths of 14 pictures, within one group


def test_the_same_seed_gives_the_same_splits_and_another_seed_others(folder):
    samples = read_fracatlas(folder)
    assert assign_splits(samples, seed=1) == assign_splits(samples, seed=1)
    assert assign_splits(samples, seed=1) != assign_splits(samples, seed=2)


def test_truncated_picture_is_in_the_table_but_excluded_from_every_split(folder):
    samples = read_fracatlas(folder)
    splits = assign_splits(samples, seed=7)
    cut = [(s, split) for s, split in zip(samples, splits, strict=True) if "truncated" in s.flags]
    assert [(s.path.name, split) for s, split in cut] == [("IMG9000000.jpg", "excluded")]


def test_index_reads_as_written(folder, tmp_path):
    samples = read_fracatlas(folder)
    splits = assign_splits(samples, seed=7)
    samples = [replace(s, split=x) for s, x in zip(samples, splits, strict=True)]
    write_index(samples, tmp_path / "sub" / "index.csv")
    index = read_index(tmp_path / "sub" / "index.csv")
    assert [s.path.resolve() for s in index.samples] == [s.path.resolve() for s in samples]
    assert [replace(s, path=Path()) for s in index.samples] == [
        replace(s, path=Path()) for s in samples
    ]
    assert "/" + str(tmp_path).strip("/") not in (tmp_path / "sub" / "index.csv").read_text()


def test_types_column_is_written_only_if_a_row_has_types(tmp_path):
    rows = [sample(str(tmp_path / name), label=1) for name in "ab"]
    for row in rows:
        row.path.write_bytes(b"x")
    write_index(rows, tmp_path / "without.csv")
    header = (tmp_path / "without.csv").read_text().splitlines()[0]
    assert "types" not in header
    assert [s.type_names for s in read_index(tmp_path / "without.csv").samples] == [(), ()]
    write_index([replace(rows[0], types="oblique;avulsion"), rows[1]], tmp_path / "with.csv")
    reread = read_index(tmp_path / "with.csv").samples
    assert [s.type_names for s in reread] == [("oblique", "avulsion"), ()]


def test_every_fault_of_a_folder_is_listed_at_once(tmp_path):
    folder = fracatlas_folder(tmp_path / "broken", per_cell=1)
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[1][1] = "tail"
    rows[2][2] = "maybe"
    (folder / "images" / rows[3][0]).unlink()
    (folder / "images" / rows[4][0]).write_bytes(b"no picture")
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(IndexFaultsError) as caught:
        read_fracatlas(folder)
    text = str(caught.value)
    assert len(caught.value.faults) == 4
    for word in ("'tail'", "'maybe'", rows[3][0], rows[4][0]):
        assert word in text


def test_folder_without_labels_is_refused(tmp_path):
    with pytest.raises(InputMissingError, match=r"labels\.csv"):
        read_fracatlas(tmp_path)


def test_negatives_have_no_region_and_separate_groups(tmp_path):
    folder = fracatlas_folder(tmp_path / "legs", per_cell=1) / "images"
    (folder / "IMG9000000.jpg").unlink()
    rows = read_negatives(folder)
    assert {row.regions for row in rows} == {"none"}
    assert {row.label for row in rows} == {None}
    assert len({row.group for row in rows}) == len(rows) == 8


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [sample("a", group="g", split="train"), sample("b", group="g", split="test")],
            "group g is in test and train",
        ),
        (
            [sample("a", sha256="x", split="train"), sample("b", sha256="x", split="val")],
            "file content x is in train and val",
        ),
        ([sample("a", regions="foot")], "regions are 'foot'"),
        ([sample("a", split="dev")], "split is 'dev'"),
        ([sample("a", label=1, label_kind="")], "label 1 of kind ''"),
        ([sample("a", group="")], "no group"),
        ([sample("a"), sample("a")], "listed more than once"),
        ([sample("a", label=1, types="oblique;oblique")], "types are 'oblique;oblique', expected"),
        ([sample("a", label=1, types="Not=one")], "types are 'Not=one', expected different names"),
        ([sample("a", label=0, types="oblique")], "but the label is 0: only fractures have types"),
    ],
)
def test_faults_are_described(rows, words):
    assert any(words in fault for fault in find_faults(rows))


def test_excluded_row_is_not_a_leak():
    rows = [sample("a", group="g"), sample("b", group="g", split="excluded")]
    assert find_faults(rows) == []


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ("elbow;hand", [1, 1, 0]),
        ("elbow;hand?;shoulder", [1, np.nan, 1]),
        ("none", [0, 0, 0]),
        ("unknown", [np.nan] * 3),
        ("shoulder?", [0, 0, np.nan]),
    ],
)
def test_region_vector_is_nan_for_unknown_regions(regions, expected):
    np.testing.assert_array_equal(sample("a", regions=regions).region_vector(), expected)


def test_region_vector_is_nan_for_regions_that_the_row_did_not_know():
    older = {"known_regions": "elbow;hand"}
    vector = sample("a", regions="hand", **older).region_vector()
    np.testing.assert_array_equal(vector, [0, 1, np.nan])
    (fault,) = find_faults([sample("a"), *(sample(n, regions="none", **older) for n in "bc")])
    assert fault.startswith("b: regions are 'none', but the row was made when fxpipe supported ")
    assert " only elbow;hand, not all of " in fault
    assert "(2 such rows); make the table again" in fault


def test_known_regions_are_written_unless_they_are_the_first_three(tmp_path):
    for name, known in (("first", "elbow;hand;shoulder"), ("more", "elbow;hand;shoulder;knee")):
        write_index([sample("a.jpg", known_regions=known)], tmp_path / name)
    assert "known_regions" not in (tmp_path / "first").read_text()
    assert read_table(tmp_path / "first").samples[0].known_regions == "elbow;hand;shoulder"
    assert read_table(tmp_path / "more").samples[0].known_regions == "elbow;hand;shoulder;knee"


def test_row_does_not_show_an_uncertain_region():
    assert not sample("a", regions="elbow;hand?;shoulder").shows("hand")
    assert sample("a", regions="elbow;hand?;shoulder").shows("elbow")


def test_table_with_a_wrong_label_or_a_missing_file_is_refused(tmp_path):
    table = tmp_path / "index.csv"
    write_index([replace(sample("a"), path=tmp_path / "a.jpg")], table)
    table.write_text(table.read_text().replace(",0,fracture", ",2,fracture"))
    with pytest.raises(IndexFaultsError) as caught:
        read_index(table)
    assert any("label is '2'" in fault for fault in caught.value.faults)
    assert any("file not found" in fault for fault in caught.value.faults)
