"""Who goes where: by group, by picture, as the data set says; and equal files."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict

import pytest
from tables import sample

from pipeline.errors import IndexFaultsError, UsageError
from stages.data.exact_duplicates import settle_twins
from stages.data.index import assign_splits, find_faults, read_table, write_index
from stages.data.split import Leak, count_leaks, own_splits


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    """Records reach ``caplog`` though a command of another test has configured logging."""
    monkeypatch.setattr(logging.getLogger("stages"), "propagate", True)


def patients(count, pictures=3, **changes):
    """Rows of patients with a few pictures each, every second patient positive."""
    return [
        sample(f"p{n}_{k}", group=f"p{n}", label=n % 2, **changes)
        for n in range(count)
        for k in range(pictures)
    ]


# ---------------------------------------------------------------------------------- assigning


def test_by_picture_parts_groups_and_keeps_shares():
    rows = patients(42)
    splits = assign_splits(rows, seed=7, by="picture")
    seen = defaultdict(set)
    for row, split in zip(rows, splits, strict=True):
        seen[row.group].add(split)
    assert sum(len(found) > 1 for found in seen.values()) > 20
    counts = Counter((row.label, split) for row, split in zip(rows, splits, strict=True))
    assert {counts[label, split] for label in (0, 1) for split in ("val", "test")} == {9}
    assert splits == assign_splits(rows, seed=7, by="picture")
    assert splits != assign_splits(rows, seed=8, by="picture")


def test_by_picture_leaves_the_excluded_out():
    rows = [*patients(12), *patients(2, split="excluded")]
    assert assign_splits(rows, seed=7, by="picture")[36:] == ["excluded"] * 6


@pytest.mark.parametrize(("by", "unit"), [("patient", "groups"), ("picture", "pictures")])
def test_too_few_to_be_split_is_an_error_that_counts(by, unit):
    rows = patients(5) if by == "patient" else patients(5, pictures=1)
    with pytest.raises(UsageError, match=f"found 5 {unit} to split, expected at least 7") as caught:
        assign_splits(rows, seed=7, by=by)
    assert "fewer parts" in caught.value.hint
    assert len(assign_splits(rows, seed=7, parts=5, by=by)) == len(rows)


@pytest.mark.parametrize("by", ["patient", "picture"])
def test_a_few_rare_rows_do_not_upset_the_split(by):
    """A stratum too small to be shared out joins another, without a warning of the library's."""
    rows = [*patients(30), *(sample(f"rare{n}", regions="elbow") for n in range(2))]
    assert len(assign_splits(rows, seed=7, by=by)) == 92


# ---------------------------------------------------------------------------------- own division


def test_an_own_division_of_three_parts_stays_as_it_is():
    rows = [sample("a"), sample("b", split="val"), sample("c", split="test")]
    assert own_splits([*rows, sample("d", split="excluded")], seed=7) == [
        *("train", "val", "test", "excluded")
    ]


@pytest.mark.parametrize("second", ["val", "test"])
def test_what_is_kept_back_is_the_test_and_training_gives_the_validation(second):
    rows = [*patients(14), *patients(4, split=second)]
    splits = own_splits(rows, seed=7)
    assert splits[42:] == ["test"] * 12
    assert Counter(splits[:42]) == {"train": 36, "val": 6}  # one of seven parts
    seen = defaultdict(set)
    for row, split in zip(rows[:42], splits[:42], strict=True):
        seen[row.group].add(split)
    assert all(len(found) == 1 for found in seen.values())


@pytest.mark.parametrize("found", [("train",), ("val", "test"), ("excluded",)])
def test_a_set_without_a_division_is_refused(found):
    rows = [sample(str(n), split=split) for n, split in enumerate(found)]
    with pytest.raises(UsageError, match="it needs a split into train") as caught:
        own_splits(rows, seed=7)
    assert "--split patient" in caught.value.hint


# ---------------------------------------------------------------------------------- leaks


def test_leaks_are_counted_by_file_and_by_group():
    rows = [
        sample("a", group="g", sha256="1"),
        sample("b", group="h", sha256="2"),
        sample("c", group="g", sha256="1", split="test"),
        sample("d", group="h", sha256="3", split="test"),
        sample("e", split="test"),
        sample("f", group="g", sha256="9", split="val"),
        sample("x", group="g", sha256="1", split="excluded"),
    ]
    assert count_leaks(rows) == [
        Leak("test", "train", pictures=3, same_file=1, same_group=2),
        Leak("test", "val", pictures=3, same_file=0, same_group=1),
        Leak("val", "train", pictures=1, same_file=0, same_group=1),
    ]
    assert str(count_leaks(rows)[0]) == (
        "test: of 3 pictures, 1 are in train byte for byte and 2 share a group with it"
    )
    assert count_leaks([row for row in rows if row.split != "test" and row.path.name != "f"]) == []


def test_a_table_that_leaks_is_written_only_when_allowed(tmp_path):
    rows = [
        sample("a", path=tmp_path / "a", group="g", sha256="1"),
        sample("b", path=tmp_path / "b", group="g", sha256="1", split="test"),
    ]
    with pytest.raises(IndexFaultsError, match="a leak"):
        write_index(rows, tmp_path / "index.csv")
    assert not (tmp_path / "index.csv").exists()
    write_index(rows, tmp_path / "index.csv", allow_leaks=True)
    assert len(read_table(tmp_path / "index.csv").samples) == 2


def test_what_is_no_leak_is_refused_even_when_leaks_are_allowed(tmp_path):
    rows = [sample("a", path=tmp_path / "a"), sample("a", path=tmp_path / "a")]
    with pytest.raises(IndexFaultsError, match="listed more than once"):
        write_index(rows, tmp_path / "index.csv", allow_leaks=True)
    with pytest.raises(IndexFaultsError, match="regions are 'foot'"):
        write_index([sample("a", regions="foot")], tmp_path / "index.csv", allow_leaks=True)


# ---------------------------------------------------------------------------------- equal files


def test_equal_files_with_other_labels_are_both_excluded(caplog):
    rows = [
        sample("a", sha256="1", label=1, flags="hardware"),
        sample("b", sha256="1", label=0),
        sample("c", sha256="2", label=0),
    ]
    found = settle_twins(rows)
    assert [(row.flags, row.split) for row in found] == [
        ("hardware;label_conflict", "excluded"),
        ("label_conflict", "excluded"),
        ("", "train"),
    ]
    assert "2 pictures share an identical file with a different label" in caplog.text


@pytest.mark.parametrize(
    "second", [{"label": None, "label_kind": ""}, {"label": 1, "label_kind": "abnormality"}]
)
def test_equal_files_with_no_label_or_one_of_another_kind_do_not_contradict(second):
    rows = [sample("a", sha256="1", label=0), sample("b", sha256="1", **second)]
    assert [row.flags for row in settle_twins(rows)] == ["", ""]


def test_groups_with_equal_files_become_one(caplog):
    rows = [
        sample("a", group="g", sha256="1"), sample("b", group="h", sha256="1"),
        sample("c", group="h", sha256="2"), sample("d", group="i", sha256="2"),
        sample("e", group="i", sha256="3"), sample("f", group="k", sha256="4"),
        sample("g", group="k", sha256="4"), sample("h", group="z", sha256="5"),
    ]  # fmt: skip
    found = settle_twins(rows)
    assert [row.group for row in found] == ["g", "g", "g", "g", "g", "k", "k", "z"]
    assert "3 groups were joined into 1, because they share an identical file" in caplog.text
    assert find_faults(found) == []


def test_groups_that_meet_later_are_joined_too():
    """a-b and c-d are found first, and then b-c."""
    pairs = [("1", "a"), ("1", "b"), ("2", "c"), ("2", "d"), ("3", "d"), ("3", "b")]
    rows = [sample(f"{n}", group=group, sha256=key) for n, (key, group) in enumerate(pairs)]
    assert {row.group for row in settle_twins(rows)} == {"a"}


def test_twins_within_a_group_are_just_rows(caplog):
    rows = [sample("a", group="g", sha256="1"), sample("b", group="g", sha256="1")]
    assert settle_twins(rows) == rows
    assert caplog.text == ""


def test_files_that_are_no_pictures_join_nothing():
    rows = [
        sample(name, sha256="empty", label=n, flags="unreadable", split="excluded")
        for n, name in enumerate("ab")
    ]
    assert settle_twins(rows) == rows
