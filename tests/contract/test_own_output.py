"""fxpipe does not judge its own output, and reports how much of it is in the input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from bundles import paint, write_png
from click.testing import Result
from command_line import fxpipe
from factories import dicom, dicom_file
from pydicom import dcmread

from pipeline.io.own_output import TABLE_BEGINS, without_results
from pipeline.report.columns import COLUMNS

HAND = {"hand": 0.9}


@pytest.fixture
def place(place) -> Path:
    """A working folder with weights and two positive hands, one of them DICOM."""
    write_png(place / "in/a.png", HAND, HAND)
    (place / "in/b.dcm").write_bytes(dicom_file(dicom(paint(HAND, HAND))))
    return place


def run(*arguments: object) -> Result:
    return fxpipe("run", "--device", "cpu", "--set", "isolate=false", *arguments)


def rows(output: str) -> list[dict[str, str]]:
    with Path(output, "results.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_own_dicom_objects_are_unsupported_and_not_in_the_study(place):
    run("--input", "in", "--output", "first", "--dicom-out", "objects")
    kinds = sorted(path.stem.rpartition("-")[2] for path in Path("objects").iterdir())
    assert kinds == ["marks", "overlay", "report"]
    shutil.copytree("objects", "in/back")
    result = run("--input", "in", "--output", "second")
    assert result.exit_code == 0, result.output
    objects = [row for row in rows("second") if row["path"].startswith("back/")]
    assert [(row["status"], row["flags"], row["study"]) for row in objects] == [
        ("unsupported", "own-output", "")
    ] * 3
    assert all("created by fxpipe" in row["error"] for row in objects)
    assert "Own output of fxpipe, not judged: 3 files among these rows" in result.stdout
    with Path("second/studies.csv").open(encoding="utf-8") as file:
        (study,) = csv.DictReader(file)
    assert (study["pictures"], study["ok"], study["unsupported"]) == ("1", "1", "0")
    line = json.loads(Path("second/results.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert line["flag_reasons"]["own-output"].startswith("Made by fxpipe itself")


@pytest.mark.parametrize(
    ("changes", "recognized"),
    [
        ({"SeriesNumber": "17"}, True),  # an archive may renumber series
        ({"SeriesDescription": "KNOCHEN"}, True),
        ({"SeriesNumber": "17", "SeriesDescription": "KNOCHEN"}, False),
        ({"Manufacturer": "ACME"}, False),
    ],
)
def test_object_is_recognized_by_manufacturer_and_series(place, changes, recognized):
    run("--input", "in", "--output", "first", "--dicom-out", "objects")
    (overlay,) = Path("objects").glob("*-overlay.dcm")
    ds = dcmread(overlay)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.save_as("changed.dcm")
    run("--input", "changed.dcm", "--output", "second")
    assert [row["flags"] == "own-output" for row in rows("second")] == [recognized]


def test_only_results_of_earlier_runs_are_skipped_and_reported(place):
    words = ("--input", "in", "--heatmaps", "all", "--report", "--fhir", "--parquet")
    assert "Own output" not in run(*words, "--output", "in/monday").stdout
    assert len(list(Path("in/monday/heatmaps").iterdir())) == 2
    write_png(place / "in/monday/late.png", HAND, HAND)
    write_png(place / "in/monday/heatmaps/drawn by hand.png", HAND, HAND)
    write_png(place / "in/monday/results.png", HAND, HAND)
    result = run(*words, "--output", "in/tuesday", "--set", "csv_bom=true")
    third = run(*words, "--output", "elsewhere")
    names = ["a.png", "b.dcm", "monday/heatmaps/drawn by hand.png", "monday/late.png"]
    names.append("monday/results.png")
    for output in ("in/tuesday", "elsewhere"):
        assert [row["path"] for row in rows(output)] == names
    assert "Own output of fxpipe, not judged: the results in monday\n" in result.stdout
    assert "not judged: the results in 2 folders: monday, tuesday\n" in third.stdout


def test_folder_with_only_results_is_wrong_usage(place):
    run("--input", "in", "--output", "first")
    result = run("--input", "first", "--output", "second")
    assert result.exit_code == 2
    assert "first: found only results of fxpipe" in result.stderr


def test_moved_heatmap_is_recognized_by_its_metadata(place):
    run("--input", "in", "--output", "first", "--heatmaps", "all")
    (place / "moved").mkdir()
    for number, path in enumerate(sorted(Path("first/heatmaps").iterdir())):
        path.rename(f"moved/{number}.png")
    result = run("--input", "moved", "--output", "second")
    assert result.exit_code == 0
    assert {(row["status"], row["flags"]) for row in rows("second")} == {
        ("unsupported", "own-output")
    }
    assert "2 files among these rows" in result.stdout


def test_other_table_of_the_same_name_is_no_result_folder(tmp_path):
    (tmp_path / "results.csv").write_text("picture,verdict\n")
    (tmp_path / "report.html").write_text("<p>")
    entries = list(tmp_path.iterdir())
    assert without_results(tmp_path, entries) == entries  # type: ignore[arg-type]


def test_tables_begin_with_the_recognized_columns():
    assert ",".join(COLUMNS).encode().startswith(TABLE_BEGINS)
