"""Folders of pictures without a supported region: groups, origins and licences by SOURCES.csv."""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from layouts import cut, draw, sheet

from pipeline.errors import IndexFaultsError
from stages.data.adapters.negatives import SOURCES, read_negatives
from stages.data.exact_duplicates import merge_identical_files
from stages.data.index import read_index, write_index

LISTED = {
    "chest/1.png": "a/No_findings/00002946_000.png",
    "chest/2.png": "a/Pneumonia/00002946_011.png",
    "chest/3.png": "a/Pneumonia/00002947_000.png",
    "ct/1.png": "data/pelvis/vhm.403.dcm",
    "ct/2.png": "data/pelvis/vhm.417.dcm",
    "mr/1.png": "categorized/0/1490.jpg",
    "mr/2.png": "categorized/0/1500.jpg",
    "mr/3.png": "categorized/1/1490.jpg",
    "photos/1.png": "test_data/elephants.jpg",
    "photos/2.png": "test_data/elephants_bw.jpg",
    "photos/3.png": "test_data/blank2 (3).jpg",
    "photos/4.png": "test_data/blank.jpg",
    "made/1.png": "-",
    "made/2.png": "",
}


def gathered(home: Path, listed: dict[str, str] = LISTED, name: str = "negatives") -> Path:
    """Write a folder with a picture for each line of its SOURCES.csv; return the folder."""
    folder = home / name
    rows = []
    for seed, (file, original) in enumerate(listed.items()):
        path = draw(folder / file, 500 + seed)
        licence = "CC BY 4.0 (figshare; so others say)" if file.startswith("mr") else "CC0"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append([file, "some/repository@1", original, "a picture", licence, digest])
    head = ["file", "source_repository", "original_path", "what", "licence", "sha256"]
    sheet(folder / SOURCES, [head, *rows])
    return folder


def by_file(folder: Path):
    return {row.path.relative_to(folder).as_posix(): row for row in read_negatives(folder)}


def test_pictures_with_the_same_source_are_one_group(tmp_path):
    folder = gathered(tmp_path)
    groups = {file: row.group for file, row in by_file(folder).items()}
    assert groups.keys() == LISTED.keys()
    assert groups["chest/1.png"] == groups["chest/2.png"] == "negatives/chest/00002946"
    assert groups["chest/3.png"] == "negatives/chest/00002947"
    assert groups["ct/1.png"] == groups["ct/2.png"] == "negatives/ct/vhm"
    assert groups["mr/1.png"] == groups["mr/2.png"] == "negatives/mr/categorized/0"
    assert groups["mr/3.png"] != groups["mr/1.png"]
    assert groups["photos/1.png"] == groups["photos/2.png"] == "negatives/photos/elephants"
    assert groups["photos/3.png"] == groups["photos/4.png"] == "negatives/photos/blank"
    assert groups["made/1.png"] != groups["made/2.png"]


def test_origin_licence_and_regions(tmp_path):
    rows = by_file(gathered(tmp_path, name="others"))
    assert {row.origin for row in rows.values()} == {
        f"others/{part}" for part in ("chest", "ct", "mr", "photos", "made")
    }
    assert rows["mr/1.png"].licence == "CC BY 4.0 (figshare; so others say)"
    assert rows["ct/1.png"].licence == "CC0"
    assert {(row.regions, row.label, row.study) for row in rows.values()} == {("none", None, "")}


def test_licence_column_is_written_only_if_a_row_has_a_licence(tmp_path):
    rows = list(by_file(gathered(tmp_path)).values())
    write_index(rows, tmp_path / "index.csv")
    reread = read_index(tmp_path / "index.csv").samples
    assert [row.licence for row in reread] == [row.licence for row in rows]
    write_index([replace(row, licence="") for row in rows], tmp_path / "plain.csv")
    assert "licence" not in (tmp_path / "plain.csv").read_text()
    assert {row.licence for row in read_index(tmp_path / "plain.csv").samples} == {""}


def test_identical_files_with_different_names_become_one_group(tmp_path):
    folder = gathered(tmp_path)
    shutil.copy(folder / "made/1.png", folder / "made/2.png")
    table = folder / SOURCES
    digest = hashlib.sha256((folder / "made/1.png").read_bytes()).hexdigest()
    lines = table.read_text().splitlines()
    lines[-1] = ",".join([*lines[-1].split(",")[:-1], digest])
    table.write_text("\n".join(lines))
    rows = {row.path.name: row for row in merge_identical_files(read_negatives(folder))
            if row.origin.endswith("made")}  # fmt: skip
    assert rows["1.png"].group == rows["2.png"].group


def test_unlisted_picture_is_a_separate_group_and_logged(tmp_path, caplog):
    folder = gathered(tmp_path)
    draw(folder / "ct/late.png", 900)
    with caplog.at_level(logging.WARNING):
        row = by_file(folder)["ct/late.png"]
    assert (row.licence, row.origin) == ("", "negatives/ct")
    assert row.group == "negatives/ct/late.png"
    assert "1 pictures are not listed: late.png" in caplog.text


def test_broken_picture_is_excluded_and_keeps_its_licence(tmp_path):
    folder = gathered(tmp_path)
    cut(folder / "ct/1.png")
    (folder / SOURCES).write_text(
        (folder / SOURCES).read_text().replace("sha256", "digest")
    )  # without digests, the changed file is not a fault
    row = by_file(folder)["ct/1.png"]
    assert (row.split, row.licence) == ("excluded", "CC0")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text.replace("licence", "terms"), "no column 'licence'"),
        (lambda text: text.replace("original_path", "was"), "no column 'original_path'"),
        (lambda text: text.replace("ct/2.png", "ct/9.png"), "not found"),
        (lambda text: text.replace("ct/2.png", "ct/1.png"), "line 6: ct/1.png is listed twice"),
    ],
)
def test_table_that_does_not_match_its_folder_is_refused(tmp_path, change, fault):
    table = gathered(tmp_path) / SOURCES
    table.write_text(change(table.read_text()))
    with pytest.raises(IndexFaultsError, match=fault):
        read_negatives(table.parent)


def test_picture_changed_after_listing_is_refused(tmp_path):
    folder = gathered(tmp_path)
    draw(folder / "ct/1.png", 901)
    with pytest.raises(
        IndexFaultsError, match=r"1\.png: its SHA-256 is .*, expected .* \(from the table"
    ):
        read_negatives(folder)


def test_without_a_table_every_picture_is_a_separate_group(tmp_path):
    draw(tmp_path / "knees/a/1.png", 1)
    draw(tmp_path / "knees/2.png", 2)
    rows = read_negatives(tmp_path / "knees")
    assert {row.group for row in rows} == {"knees/a/1.png", "knees/2.png"}
    assert {(row.origin, row.licence) for row in rows} == {("knees", "")}


def test_broken_picture_is_excluded_and_text_file_has_no_row(tmp_path, caplog):
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
