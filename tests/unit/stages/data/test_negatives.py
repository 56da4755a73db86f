"""Folders of pictures without a supported region: groups, origins and licences by SOURCES.csv."""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from layouts import cut, draw, sheet
from tables import sample

from pipeline.errors import IndexFaultsError, UsageError
from stages.data.adapters.negatives import SOURCES, read_negatives
from stages.data.exact_duplicates import settle_twins
from stages.data.index import read_index, write_index
from stages.data.split import held_out

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
    """A folder with a picture for each line of its SOURCES.csv."""
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


def test_what_belongs_together_is_one_group(tmp_path):
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
    rows = by_file(gathered(tmp_path, name="strangers"))
    assert {row.origin for row in rows.values()} == {
        f"strangers/{part}" for part in ("chest", "ct", "mr", "photos", "made")
    }
    assert rows["mr/1.png"].licence == "CC BY 4.0 (figshare; so others say)"
    assert rows["ct/1.png"].licence == "CC0"
    assert {(row.regions, row.label, row.study) for row in rows.values()} == {("none", None, "")}


def test_a_licence_survives_the_table_and_takes_no_column_where_there_is_none(tmp_path):
    rows = list(by_file(gathered(tmp_path)).values())
    write_index(rows, tmp_path / "index.csv")
    back = read_index(tmp_path / "index.csv").samples
    assert [row.licence for row in back] == [row.licence for row in rows]
    write_index([replace(row, licence="") for row in rows], tmp_path / "plain.csv")
    assert "licence" not in (tmp_path / "plain.csv").read_text()
    assert {row.licence for row in read_index(tmp_path / "plain.csv").samples} == {""}


def test_equal_files_become_one_group_whatever_their_names(tmp_path):
    folder = gathered(tmp_path)
    shutil.copy(folder / "made/1.png", folder / "made/2.png")
    table = folder / SOURCES
    digest = hashlib.sha256((folder / "made/1.png").read_bytes()).hexdigest()
    lines = table.read_text().splitlines()
    lines[-1] = ",".join([*lines[-1].split(",")[:-1], digest])
    table.write_text("\n".join(lines))
    rows = {row.path.name: row for row in settle_twins(read_negatives(folder))
            if row.origin.endswith("made")}  # fmt: skip
    assert rows["1.png"].group == rows["2.png"].group


def test_what_is_not_listed_has_a_row_of_its_own_and_is_told(tmp_path, caplog):
    folder = gathered(tmp_path)
    draw(folder / "ct/late.png", 900)
    with caplog.at_level(logging.WARNING):
        row = by_file(folder)["ct/late.png"]
    assert (row.licence, row.origin) == ("", "negatives/ct")
    assert row.group == "negatives/ct/late.png"
    assert "1 pictures are not listed: late.png" in caplog.text


def test_a_broken_picture_is_excluded_and_keeps_its_licence(tmp_path):
    folder = gathered(tmp_path)
    cut(folder / "ct/1.png")
    (folder / SOURCES).write_text(
        (folder / SOURCES).read_text().replace("sha256", "digest")
    )  # so that the change is not a fault of its own
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
def test_a_table_that_does_not_fit_its_folder_is_refused(tmp_path, change, fault):
    table = gathered(tmp_path) / SOURCES
    table.write_text(change(table.read_text()))
    with pytest.raises(IndexFaultsError, match=fault):
        read_negatives(table.parent)


def test_a_picture_that_changed_since_it_was_listed_is_refused(tmp_path):
    folder = gathered(tmp_path)
    draw(folder / "ct/1.png", 901)
    with pytest.raises(
        IndexFaultsError, match=r"1\.png: its SHA-256 is .*, expected .* \(from the table"
    ):
        read_negatives(folder)


def test_without_a_table_every_picture_is_its_own(tmp_path):
    draw(tmp_path / "knees/a/1.png", 1)
    draw(tmp_path / "knees/2.png", 2)
    rows = read_negatives(tmp_path / "knees")
    assert {row.group for row in rows} == {"knees/a/1.png", "knees/2.png"}
    assert {(row.origin, row.licence) for row in rows} == {("knees", "")}


# ------------------------------------------------------------------------------- held out


def test_whole_data_sets_are_held_out_by_their_origin_or_a_part_of_it():
    rows = [sample(str(i), origin=origin) for i, origin in enumerate(("a/x", "a/y", "ab", "b"))]
    assert held_out(rows, []) == [False] * 4
    assert held_out(rows, ["a"]) == [True, True, False, False]
    assert held_out(rows, ["a/y", "b"]) == [False, True, False, True]


def test_a_group_is_held_out_as_a_whole():
    rows = [sample("1", origin="a", group="g"), sample("2", origin="b", group="g"),
            sample("3", origin="b")]  # fmt: skip
    assert held_out(rows, ["a"]) == [True, True, False]


def test_an_origin_that_is_not_there_is_refused_with_those_that_are():
    rows = [sample("1", origin="negatives/skimage"), sample("2", origin="made")]
    with pytest.raises(UsageError, match="the table has made, negatives/skimage") as caught:
        held_out(rows, ["negatives/skimag"])
    assert caught.value.hint == "did you mean negatives/skimage?"
