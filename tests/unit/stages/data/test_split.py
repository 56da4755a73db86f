"""Splits by group, by picture and of the data set; leaks, identical files, held-out data sets."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from tables import sample

from pipeline.errors import IndexFaultsError, UsageError
from stages.data.exact_duplicates import merge_identical_files
from stages.data.index import assign_splits, find_faults, read_table, write_index
from stages.data.split import Leak, count_leaks, held_out, own_splits


def patients(count, pictures=3, **changes):
    """Rows of patients with ``pictures`` pictures each; every second patient is positive."""
    return [
        sample(f"p{n}_{k}", group=f"p{n}", label=n % 2, **changes)
        for n in range(count)
        for k in range(pictures)
    ]


# ---------------------------------------------------------------------------------- assignment


def test_split_by_picture_divides_groups_and_keeps_class_shares():
    rows = patients(42)
    splits = assign_splits(rows, seed=7, by="picture")
    splits_of_group = defaultdict(set)
    for row, split in zip(rows, splits, strict=True):
        splits_of_group[row.group].add(split)
    assert sum(len(values) > 1 for values in splits_of_group.values()) > 20
    counts = Counter((row.label, split) for row, split in zip(rows, splits, strict=True))
    assert {counts[label, split] for label in (0, 1) for split in ("val", "test")} == {9}
    assert splits == assign_splits(rows, seed=7, by="picture")
    assert splits != assign_splits(rows, seed=8, by="picture")


def test_split_by_picture_keeps_excluded_rows_excluded():
    rows = [*patients(12), *patients(2, split="excluded")]
    assert assign_splits(rows, seed=7, by="picture")[36:] == ["excluded"] * 6


@pytest.mark.parametrize(("by", "unit"), [("patient", "groups"), ("picture", "pictures")])
def test_error_for_too_few_groups_or_pictures_states_their_number(by, unit):
    rows = patients(5) if by == "patient" else patients(5, pictures=1)
    with pytest.raises(UsageError, match=f"found 5 {unit} to split, expected at least 7") as caught:
        assign_splits(rows, seed=7, by=by)
    assert "fewer parts" in caught.value.hint
    assert len(assign_splits(rows, seed=7, parts=5, by=by)) == len(rows)


@pytest.mark.parametrize("by", ["patient", "picture"])
def test_split_with_a_rare_stratum_does_not_warn(by):
    """A stratum with fewer rows than parts is merged with another; scikit-learn does not warn."""
    rows = [*patients(30), *(sample(f"rare{n}", regions="elbow") for n in range(2))]
    assert len(assign_splits(rows, seed=7, by=by)) == 92


# -------------------------------------------------------------------------------- data set's split


def test_complete_split_of_the_data_set_is_kept():
    rows = [sample("a"), sample("b", split="val"), sample("c", split="test")]
    assert own_splits([*rows, sample("d", split="excluded")], seed=7) == [
        *("train", "val", "test", "excluded")
    ]


@pytest.mark.parametrize("second", ["val", "test"])
def test_only_held_out_split_becomes_test_and_validation_is_taken_from_training(second):
    rows = [*patients(14), *patients(4, split=second)]
    splits = own_splits(rows, seed=7)
    assert splits[42:] == ["test"] * 12
    assert Counter(splits[:42]) == {"train": 36, "val": 6}  # one of seven parts
    splits_of_group = defaultdict(set)
    for row, split in zip(rows[:42], splits[:42], strict=True):
        splits_of_group[row.group].add(split)
    assert all(len(values) == 1 for values in splits_of_group.values())


@pytest.mark.parametrize("splits", [("train",), ("val", "test"), ("excluded",)])
def test_data_set_without_a_usable_split_is_refused(splits):
    rows = [sample(str(n), split=split) for n, split in enumerate(splits)]
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


def test_table_with_leaks_is_written_only_if_allowed(tmp_path):
    rows = [
        sample("a", path=tmp_path / "a", group="g", sha256="1"),
        sample("b", path=tmp_path / "b", group="g", sha256="1", split="test"),
    ]
    with pytest.raises(IndexFaultsError, match="a leak"):
        write_index(rows, tmp_path / "index.csv")
    assert not (tmp_path / "index.csv").exists()
    write_index(rows, tmp_path / "index.csv", allow_leaks=True)
    assert len(read_table(tmp_path / "index.csv").samples) == 2


def test_other_faults_are_refused_even_if_leaks_are_allowed(tmp_path):
    rows = [sample("a", path=tmp_path / "a"), sample("a", path=tmp_path / "a")]
    with pytest.raises(IndexFaultsError, match="listed more than once"):
        write_index(rows, tmp_path / "index.csv", allow_leaks=True)
    with pytest.raises(IndexFaultsError, match="regions are 'foot'"):
        write_index([sample("a", regions="foot")], tmp_path / "index.csv", allow_leaks=True)


# ---------------------------------------------------------------------------------- identical files


def test_identical_files_with_different_labels_are_all_excluded(caplog):
    rows = [
        sample("a", sha256="1", label=1, flags="hardware"),
        sample("b", sha256="1", label=0),
        sample("c", sha256="2", label=0),
    ]
    settled = merge_identical_files(rows)
    assert [(row.flags, row.split) for row in settled] == [
        ("hardware;label_conflict", "excluded"),
        ("label_conflict", "excluded"),
        ("", "train"),
    ]
    assert "2 pictures share an identical file with a different label" in caplog.text


@pytest.mark.parametrize(
    "second", [{"label": None, "label_kind": ""}, {"label": 1, "label_kind": "abnormality"}]
)
def test_identical_files_without_label_or_with_another_label_kind_do_not_contradict(second):
    rows = [sample("a", sha256="1", label=0), sample("b", sha256="1", **second)]
    assert [row.flags for row in merge_identical_files(rows)] == ["", ""]


def test_groups_with_identical_files_are_joined(caplog):
    rows = [
        sample("a", group="g", sha256="1"), sample("b", group="h", sha256="1"),
        sample("c", group="h", sha256="2"), sample("d", group="i", sha256="2"),
        sample("e", group="i", sha256="3"), sample("f", group="k", sha256="4"),
        sample("g", group="k", sha256="4"), sample("h", group="z", sha256="5"),
    ]  # fmt: skip
    settled = merge_identical_files(rows)
    assert [row.group for row in settled] == ["g", "g", "g", "g", "g", "k", "k", "z"]
    assert "3 groups were joined into 1, because they share an identical file" in caplog.text
    assert find_faults(settled) == []


def test_groups_connected_by_a_later_file_are_joined():
    """The pairs a-b and c-d come first, then b-d, which connects them."""
    pairs = [("1", "a"), ("1", "b"), ("2", "c"), ("2", "d"), ("3", "d"), ("3", "b")]
    rows = [sample(f"{n}", group=group, sha256=key) for n, (key, group) in enumerate(pairs)]
    assert {row.group for row in merge_identical_files(rows)} == {"a"}


def test_identical_files_within_a_group_change_nothing(caplog):
    rows = [sample("a", group="g", sha256="1"), sample("b", group="g", sha256="1")]
    assert merge_identical_files(rows) == rows
    assert caplog.text == ""


def test_unreadable_files_do_not_join_groups():
    rows = [
        sample(name, sha256="empty", label=n, flags="unreadable", split="excluded")
        for n, name in enumerate("ab")
    ]
    assert merge_identical_files(rows) == rows


# ---------------------------------------------------------------------------------- held out


def test_data_sets_are_held_out_by_origin_or_by_a_part_of_it():
    rows = [sample(str(i), origin=origin) for i, origin in enumerate(("a/x", "a/y", "ab", "b"))]
    assert held_out(rows, []) == [False] * 4
    assert held_out(rows, ["a"]) == [True, True, False, False]
    assert held_out(rows, ["a/y", "b"]) == [False, True, False, True]


def test_whole_group_is_held_out():
    rows = [sample("1", origin="a", group="g"), sample("2", origin="b", group="g"),
            sample("3", origin="b")]  # fmt: skip
    assert held_out(rows, ["a"]) == [True, True, False]


def test_error_for_an_unknown_origin_lists_the_known_ones():
    rows = [sample("1", origin="negatives/skimage"), sample("2", origin="made")]
    with pytest.raises(UsageError, match="the table has made, negatives/skimage") as caught:
        held_out(rows, ["negatives/skimag"])
    assert caught.value.hint == "did you mean negatives/skimage?"
