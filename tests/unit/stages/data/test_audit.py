"""Audit of a data table: leaks, near duplicates, contradictions, and the written report."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tables import fracatlas_folder, sample

from pipeline.errors import IndexFaultsError
from pipeline.progress import Silent
from stages.data.adapters.fracatlas import read_fracatlas
from stages.data.audit import Kind, audit
from stages.data.audit_page import COLUMNS, describe_audit, summary, write_audit
from stages.data.index import (
    assign_splits,
    find_faults,
    find_illegal,
    find_incomplete,
    find_leaks,
    read_index,
    read_table,
    write_index,
)
from stages.samples import Index

SAMPLES = Path(__file__).parents[4] / "samples"
HANDS = ("IMG0000049.jpg", "IMG0000336.jpg", "IMG0001938.jpg")
SHOULDERS = ("IMG0000346.jpg", "IMG0000764.jpg")


@pytest.fixture
def copy_row(tmp_path):
    """A function that copies a sample radiograph and returns its row."""

    def write(name, source, split, change=None, **columns):
        path = tmp_path / name
        if change is None:
            shutil.copy(SAMPLES / source, path)
        else:
            with Image.open(SAMPLES / source) as image:
                change(image.convert("L")).save(path, quality=60)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return sample(name, path=path, split=split, sha256=digest, **columns)

    return write


class Counting:
    def __init__(self):
        self.count = 0

    def advance(self):
        self.count += 1


def audit_rows(*rows, progress=None):
    table = Index(Path("made/index.csv"), "0" * 64, tuple(rows))
    return audit(table, progress or Silent())


def kinds(findings):
    return [finding.kind for finding in findings]


def mirrored_and_small(image):
    small = image.resize((image.width // 2, image.height // 2))
    return small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def test_distinct_pictures_give_no_finding_and_progress_counts_each_row(copy_row):
    progress = Counting()
    splits = ("train", "val", "test", "train", "test")
    rows = [copy_row(n, n, split) for n, split in zip(HANDS + SHOULDERS, splits, strict=True)]
    result = audit_rows(*rows, progress=progress)
    assert result.findings == ()
    assert progress.count == 5
    assert set(result.seconds) == {"read", "compare"}
    assert describe_audit(result).endswith("no leak was found")


def test_identical_files_are_a_leak_across_splits_and_a_note_within_one(copy_row):
    rows = [
        copy_row(f"{split}{n}.jpg", HANDS[0], split) for split in ("train", "test") for n in "12"
    ]
    result = audit_rows(*rows, copy_row("other.jpg", HANDS[1], "test"))
    assert set(kinds(result.findings)) == {Kind.SAME_FILE}
    assert {frozenset(s.path.name for s in leak.samples) for leak in result.leaks} == {
        frozenset(("train1.jpg", "test1.jpg")),
        frozenset(("train1.jpg", "test2.jpg")),
        frozenset(("train2.jpg", "test1.jpg")),
    }
    assert len(result.notes) == 2
    assert result.twins_of("test", "train") == 2
    assert result.twins_of("train", "test") == 2
    assert result.twins_of("val", "train") == 0


def test_identical_file_with_a_wrong_digest_is_found(copy_row):
    rows = [copy_row("a.jpg", HANDS[0], "train"), copy_row("b.jpg", HANDS[0], "test")]
    result = audit_rows(rows[0], replace(rows[1], sha256="f" * 64))
    assert kinds(result.leaks) == [Kind.SAME_FILE]
    assert kinds(result.notes) == [Kind.CHANGED]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (mirrored_and_small, "mirrored"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_90), "turned by 90°"),
        (lambda image: image.resize((224, 224)), ""),
        (lambda image: image.rotate(-30, Image.Resampling.BILINEAR), "turned by 330°"),
    ],
)
def test_near_duplicate_across_splits_is_a_leak_with_its_orientation(copy_row, change, words):
    rows = [copy_row(n, n, "train") for n in HANDS + SHOULDERS]
    result = audit_rows(*rows, copy_row("copy.jpg", HANDS[1], "val", change))
    (leak,) = result.leaks
    assert leak.kind is Kind.NEAR_DUPLICATE
    assert {s.path.name for s in leak.samples} == {HANDS[1], "copy.jpg"}
    assert leak.likeness > 0.9
    assert leak.detail == words
    assert result.twins_of("val", "train") == 1
    assert result.failures == result.leaks


def test_excluded_rows_cause_notes_but_no_failures(copy_row):
    result = audit_rows(
        copy_row("a.jpg", HANDS[0], "train", group="g", study="s"),
        copy_row("b.jpg", HANDS[0], "excluded", group="g", study="s", label=1),
        copy_row("c.jpg", HANDS[0], "excluded", mirrored_and_small, group="g", study="s"),
    )
    assert result.failures == ()
    assert Kind.SAME_FILE in kinds(result.notes)
    assert Kind.NEAR_DUPLICATE in kinds(result.notes)
    assert Kind.LABELS in kinds(result.notes)


def test_group_or_study_in_several_splits_is_one_finding_with_all_its_rows(copy_row):
    rows = [
        copy_row(HANDS[0], HANDS[0], "train", group="g"),
        copy_row(HANDS[1], HANDS[1], "test", group="g"),
        copy_row(HANDS[2], HANDS[2], "test", group="g"),
        copy_row(SHOULDERS[0], SHOULDERS[0], "train", study="s"),
        copy_row(SHOULDERS[1], SHOULDERS[1], "val", study="s"),
    ]
    group, study = audit_rows(*rows).leaks
    assert (group.kind, group.samples) == (Kind.SAME_GROUP, tuple(rows[:3]))
    assert group.detail == "g: 1 in train, 2 in test"
    assert (study.kind, study.samples) == (Kind.SAME_STUDY, tuple(rows[3:]))


def test_contradictory_labels_are_a_failure_within_one_split(copy_row):
    rows = [
        copy_row("a.jpg", HANDS[0], "train", label=1, group="g"),
        copy_row("b.jpg", HANDS[0], "train", mirrored_and_small, label=0, group="g"),
    ]
    result = audit_rows(*rows)
    assert kinds(result.failures) == [Kind.LABELS]
    assert result.leaks == ()
    assert result.failures[0].detail == "fracture 1 and 0"
    assert "some pictures have faults" in describe_audit(result)
    other_kind = replace(rows[1], label_kind="abnormality")
    assert audit_rows(rows[0], other_kind).failures == ()
    unknown = replace(rows[1], label=None, label_kind="")
    assert audit_rows(rows[0], unknown).failures == ()


def test_contradictory_regions_are_a_note_and_unknown_regions_do_not_contradict(copy_row):
    rows = [copy_row("a.jpg", HANDS[0], "train"), copy_row("b.jpg", HANDS[0], "train")]
    elbow, unsure = (replace(rows[1], regions=words) for words in ("elbow", "hand;elbow?"))
    assert kinds(audit_rows(rows[0], elbow).notes) == [Kind.SAME_FILE, Kind.REGIONS]
    assert kinds(audit_rows(rows[0], unsure).notes) == [Kind.SAME_FILE]


def test_duplicates_in_different_groups_are_reported_for_a_new_split(copy_row):
    rows = [copy_row("a.jpg", HANDS[0], "train"), copy_row("b.jpg", HANDS[0], "train", np_flip)]
    result = audit_rows(*rows)
    assert len(result.ungrouped) == 1
    assert "new split" in describe_audit(result)
    joined = [replace(row, group="g") for row in rows]
    assert audit_rows(*joined).ungrouped == ()


def np_flip(image):
    return Image.fromarray(np.asarray(image)[::-1].copy())


def test_unreadable_pictures_are_listed_and_the_others_are_compared(copy_row, tmp_path):
    rows = [
        copy_row("a.jpg", HANDS[0], "train"),
        sample("gone.jpg", path=tmp_path / "gone.jpg"),
        copy_row("cut.jpg", "IMG0004119.jpg", "test"),
        copy_row("cut2.jpg", "IMG0004119.jpg", "excluded"),
        copy_row("b.jpg", HANDS[0], "test", np_flip),
    ]
    result = audit_rows(*rows)
    unreadable = [f for f in result.findings if f.kind is Kind.UNREADABLE]
    assert {f.samples[0].path.name: f.failure for f in unreadable} == {
        "gone.jpg": True, "cut.jpg": True, "cut2.jpg": False,
    }  # fmt: skip
    assert all(f.samples[0].path.name in f.detail for f in unreadable)
    assert kinds(result.leaks) == [Kind.NEAR_DUPLICATE]
    assert Kind.SAME_FILE in kinds(result.notes)  # also for two broken files


@pytest.mark.parametrize("count", [0, 1])
def test_table_of_no_or_one_picture_has_no_finding(copy_row, count):
    assert audit_rows(*[copy_row(n, n, "train") for n in HANDS[:count]]).findings == ()


def test_generated_training_pictures_have_no_failure(tmp_path):
    rows = read_fracatlas(fracatlas_folder(tmp_path / "data"))
    splits = assign_splits(rows, seed=7)
    rows = [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]
    result = audit_rows(*rows)
    assert result.failures == ()
    assert kinds(result.notes) == [Kind.UNREADABLE]


def test_table_with_leaks_is_read_for_the_audit_but_not_for_training(copy_row, tmp_path):
    rows = [
        copy_row("a.jpg", HANDS[0], "train", group="g"),
        copy_row("b.jpg", HANDS[0], "test", group="g"),
    ]
    write_index([rows[0]], tmp_path / "index.csv")
    text = (tmp_path / "index.csv").read_text()
    line = text.splitlines()[1].replace("a.jpg", "b.jpg").replace("train", "test")
    missing = line.replace("b.jpg", "gone.jpg")
    (tmp_path / "index.csv").write_text(f"{text}{line}\n{line}\n{missing}\n")
    with pytest.raises(IndexFaultsError) as caught:
        read_index(tmp_path / "index.csv")
    words = " ".join(caught.value.faults)
    for fault in ("group g", "file content", "listed more than once", "file not found"):
        assert fault in words
    table = read_table(tmp_path / "index.csv")
    assert [s.path.name for s in table.samples] == ["a.jpg", "b.jpg", "b.jpg", "gone.jpg"]
    assert kinds(audit(table, Silent()).leaks) == [Kind.SAME_FILE] * 2 + [Kind.SAME_GROUP]


def test_illegal_rows_are_refused_for_the_audit(copy_row, tmp_path):
    write_index([copy_row("a.jpg", HANDS[0], "train")], tmp_path / "index.csv")
    text = (tmp_path / "index.csv").read_text()
    (tmp_path / "index.csv").write_text(text.replace("train", "trian"))
    with pytest.raises(IndexFaultsError, match="trian"):
        read_table(tmp_path / "index.csv")


def test_faults_are_illegal_and_incomplete_rows_and_leaks():
    rows = [sample("a.jpg", group="g", split="train"), sample("b.jpg", group="g", split="test")]
    rows.append(sample("c.jpg", group=""))
    rows.append(sample("d.jpg", regions="knee"))
    assert find_faults(rows) == find_illegal(rows) + find_incomplete(rows) + find_leaks(rows)
    assert [len(find(rows)) for find in (find_illegal, find_incomplete, find_leaks)] == [1, 1, 1]


def test_page_is_self_contained_shows_pairs_and_escapes_names(copy_row, tmp_path):
    rows = [
        copy_row("a.jpg", HANDS[0], "train", label=1),
        copy_row("b.jpg", HANDS[0], "test", mirrored_and_small, group="<script>alert(1)</script>"),
        sample("gone.jpg", path=tmp_path / "gone.jpg"),
    ]
    result = audit_rows(*rows)
    write_audit(result, tmp_path / "out" / "audit")
    page = (tmp_path / "out" / "audit" / "audit.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 4  # the leak and its contradictory labels
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert "cannot be read" in page
    assert "mirrored" in page


def test_page_limits_the_findings_and_the_table_lists_all(copy_row, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.data.audit_page.MAX_FINDINGS", 2)
    rows = [copy_row(f"{n}.jpg", HANDS[0], "test" if n else "train", group="g") for n in range(5)]
    result = audit_rows(*rows)
    write_audit(result, tmp_path)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "5 more are not displayed; pairs.csv lists all." in page
    table = pd.read_csv(tmp_path / "pairs.csv", keep_default_na=False)
    assert tuple(table.columns) == COLUMNS
    assert len(table) == len(result.findings) == 8
    group = table[table["kind"] == "same group"].iloc[0]
    assert (group["pictures"], group["split_1"], group["split_2"]) == (5, "train", "test")


def test_table_without_findings_has_a_header(tmp_path):
    write_audit(audit_rows(), tmp_path)
    assert (tmp_path / "pairs.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_counts_are_written_as_json(copy_row, tmp_path):
    rows = [
        copy_row("a.jpg", HANDS[0], "train"),
        copy_row("b.jpg", HANDS[0], "test"),
        copy_row("c.jpg", HANDS[1], "test"),
    ]
    result = audit_rows(*rows)
    write_audit(result, tmp_path)
    counts = json.loads((tmp_path / "audit.json").read_text())
    assert counts == summary(result)
    assert counts["leaks"] == {"same file": 1}
    assert counts["in_train"]["test"] == {"pictures": 2, "with_twin": 1}
    assert "test: 1 of 2 pictures (50.0%)" in describe_audit(result)


def test_table_with_only_paths_and_splits_can_be_audited(tmp_path):
    for name, source in (("a.jpg", HANDS[0]), ("b.jpg", HANDS[0]), ("c.jpg", HANDS[1])):
        shutil.copy(SAMPLES / source, tmp_path / name)
    (tmp_path / "index.csv").write_text("path,split\na.jpg,train\nb.jpg,test\nc.jpg,test\n")
    table = read_table(tmp_path / "index.csv")
    assert [row.regions for row in table.samples] == ["unknown"] * 3
    assert len({row.group for row in table.samples}) == 3
    result = audit(table, Silent())
    assert kinds(result.findings) == [Kind.SAME_FILE]
    assert result.twins_of("test", "train") == 1
    with pytest.raises(IndexFaultsError, match="no column 'group'"):
        read_index(tmp_path / "index.csv")


def test_rows_without_group_or_kind_are_refused_for_training(tmp_path):
    shutil.copy(SAMPLES / HANDS[0], tmp_path / "a.jpg")
    rows = pd.DataFrame(
        [{"path": "a.jpg", "regions": "hand", "label": "1", "label_kind": "", "group": "",
          "study": "", "split": "train", "origin": "", "flags": "", "sha256": ""}]
    )  # fmt: skip
    rows.to_csv(tmp_path / "index.csv", index=False)
    with pytest.raises(IndexFaultsError, match=r"2 fault\(s\)") as caught:
        read_index(tmp_path / "index.csv")
    assert "no group" in str(caught.value)
    assert "label 1 of kind ''" in str(caught.value)
