"""``fxpipe index``: every layout from folder to table, exit codes and words."""

from __future__ import annotations

import shutil

import factories
import layouts
import pytest
from click.testing import CliRunner
from layouts import cut, draw, sheet
from tables import fracatlas_folder

from pipeline.cli import main
from pipeline.cli.index import LAYOUTS as OFFERED
from stages.data.adapters.layouts import LAYOUTS
from stages.data.index import read_index, read_table


@pytest.fixture
def fxpipe(tmp_path):
    """Runs the command; the table goes to index.csv."""

    def run(*words, code=0):
        command = ["index", *map(str, words), "--output", str(tmp_path / "index.csv")]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return run


def test_every_layout_is_offered():
    assert set(OFFERED) == {"auto", *LAYOUTS}


def test_mura_becomes_a_table_by_patient(fxpipe, tmp_path):
    root = layouts.mura(tmp_path, patients=12)
    result = fxpipe("--input", root, "--parts", "3")
    index = read_index(tmp_path / "index.csv")
    assert len(index.samples) == 2 * (12 * 2 + 1)
    assert {s.label_kind for s in index.samples} == {"abnormality"}
    assert "labels: 50 abnormality" in result.stdout
    assert f"50 pictures in 12 groups, {index.digest[:12]}" in result.stdout
    assert "excluded" not in result.stdout
    assert "1 hidden files were skipped" in result.stderr
    assert f"{root}: read as mura" in result.stderr


def test_mura_as_it_is_divided(fxpipe, tmp_path):
    root = layouts.mura(tmp_path, patients=16)
    fxpipe("--input", root, "--split", "own", "--parts", "3", "--quiet")
    index = read_index(tmp_path / "index.csv")
    for row in index.samples:
        assert (row.split == "test") == ("/valid/" in row.path.as_posix())
    assert index.of("val")


def test_one_part_of_mura_has_no_division(fxpipe, tmp_path):
    root = layouts.mura(tmp_path)
    result = fxpipe("--input", root / "train", "--split", "own", code=2)
    assert "the data set has only train" in result.stderr
    assert "hint: split it by patient" in result.stderr
    assert not (tmp_path / "index.csv").exists()


def test_the_multi_region_set_leaks_as_divided_and_says_so(fxpipe, tmp_path):
    root = layouts.multi_region(tmp_path)
    refused = fxpipe("--input", root, "--split", "own", code=1)
    words = "test: of 2 pictures, 2 are in train byte for byte and 2 share a group with it"
    assert words in refused.stderr
    assert "--allow-leaks" in refused.stderr
    assert not (tmp_path / "index.csv").exists()
    result = fxpipe("--input", root, "--split", "own", "--allow-leaks")
    assert f"leak: {words}" in result.stdout
    assert "are not valid for new patients" in result.stdout
    splits = [row.split for row in read_table(tmp_path / "index.csv").samples]
    assert (splits.count("test"), splits.count("val")) == (2, 2)


def test_the_multi_region_set_by_patient_leaks_nothing(fxpipe, tmp_path):
    result = fxpipe("--input", layouts.multi_region(tmp_path), "--parts", "3")
    assert "leak" not in result.stdout
    index = read_index(tmp_path / "index.csv")
    assert {row.label_kind for row in index.samples} == {"fracture"}
    assert all(index.of(split) for split in ("train", "val", "test"))


def test_an_own_division_without_leaks_needs_no_leave(fxpipe, tmp_path):
    root = layouts.multi_region(tmp_path, leaking=False)
    result = fxpipe("--input", root, "--split", "own")
    assert "leak" not in result.stdout
    assert len(read_index(tmp_path / "index.csv").of("test")) == 2


def test_a_split_by_picture_is_written_with_its_leaks_told(fxpipe, tmp_path):
    root = layouts.mura(tmp_path, patients=12)
    result = fxpipe("--input", root, "--split", "picture")
    assert "share a group with it" in result.stdout
    assert result.stdout.index("leak: test: of") < result.stdout.index("are not valid for new")
    assert len(read_table(tmp_path / "index.csv").samples) == 50


def test_negatives_are_shared_out_whatever_the_division(fxpipe, tmp_path):
    root = layouts.multi_region(tmp_path, leaking=False)
    for n in range(7):
        draw(tmp_path / "knees" / f"{n}.png", 900 + n)
    fxpipe("--input", root, "--split", "own", "--negatives", tmp_path / "knees")
    index = read_index(tmp_path / "index.csv")
    shares = [sum(s.regions == "none" for s in index.of(x)) for x in ("train", "val", "test")]
    assert shares == [5, 1, 1]


@pytest.mark.parametrize("split", ["own", "patient"])
def test_an_origin_that_is_held_out_is_tested_on_alone(fxpipe, tmp_path, split):
    root = layouts.multi_region(tmp_path, leaking=False)
    rows = [["file", "original_path", "licence"]]
    for n in range(14):
        file = f"{'spines' if n % 2 else 'photos'}/{n}.png"
        draw(tmp_path / "negatives" / file, 900 + n)
        rows.append([file, f"{'abcdefghijklmn'[n]}.png", "CC0" if n % 2 else "CC BY 4.0; a site"])
    sheet(tmp_path / "negatives" / "SOURCES.csv", rows)
    draw(tmp_path / "knees" / "a.png", 800)
    result = fxpipe(
        *("--input", root, "--split", split, "--parts", "3", "--hold-out", "negatives/photos"),
        *("--negatives", tmp_path / "negatives", "--negatives", tmp_path / "knees"),
    )
    index = read_index(tmp_path / "index.csv")
    found = {origin: {s.split for s in index.samples if s.origin == origin}
             for origin in ("negatives/photos", "negatives/spines")}  # fmt: skip
    assert found["negatives/photos"] == {"test"}
    assert {"train", "test"} <= found["negatives/spines"]
    assert index.of("val")
    assert "held out for testing only: 7 pictures" in result.stdout
    assert "  7 CC BY 4.0; a site: 7 negatives/photos\n" in result.stdout
    assert "  7 CC0: 7 negatives/spines\n" in result.stdout
    assert " not stated: " in result.stdout


def test_an_origin_that_no_row_has_is_2(fxpipe, tmp_path):
    root = layouts.mura(tmp_path, patients=12)
    result = fxpipe("--input", root, "--hold-out", "mura/XR_ELBO", code=2)
    assert "no row has this origin" in result.stderr
    assert "did you mean" in result.stderr
    assert not (tmp_path / "index.csv").exists()


def test_fracatlas_as_distributed(fxpipe, tmp_path):
    rows = [{"image_id": f"a{n}.jpg", "leg": 1, "fractured": n % 2} for n in range(20)]
    root = layouts.fracatlas(tmp_path, rows)
    cut(root / "images/Non_fractured/a0.jpg")
    (root / "images/Fractured/a1.jpg").rename(root / "images/Non_fractured/a1.jpg")
    result = fxpipe("--input", root.parent / "FracAtlas", "--parts", "3")
    assert "labels: 20 fracture" in result.stdout
    assert "excluded: 2 pictures (1 truncated, 1 label_conflict)" in result.stdout
    index = read_index(tmp_path / "index.csv")
    assert len([s for s in index.samples if s.boxes]) == 10


def test_our_fracatlas_with_negatives_is_as_it_was(fxpipe, tmp_path):
    root = fracatlas_folder(tmp_path / "data")
    draw(tmp_path / "knees" / "a.png", 900)
    result = fxpipe("--input", root, "--negatives", tmp_path / "knees", "--quiet")
    assert "labels: 113 fracture, 1 without a label" in result.stdout
    assert "excluded: 1 pictures (1 truncated)" in result.stdout
    assert "114 pictures" in result.stdout
    assert result.stderr == ""


def test_a_table_with_its_columns_told(fxpipe, tmp_path):
    names = [draw(tmp_path / "x" / f"{n}.png", n).name for n in range(12)]
    table = sheet(
        tmp_path / "x" / "my.csv",
        [["Scan", "Outcome", "Person"], *([name, n % 2, n // 2] for n, name in enumerate(names))],
    )
    columns = ("--columns", "path=Scan,label=Outcome", "--columns", "group=Person")
    result = fxpipe("--input", table, *columns, "--parts", "3")
    assert "labels: 12 unknown" in result.stdout
    assert "12 pictures in 6 groups" in result.stdout
    assert "columns path=Scan, label=Outcome, group=Person" in result.stderr
    result = fxpipe("--input", table, *columns, "--parts", "3", "--label-kind", "fracture")
    assert "labels: 12 fracture" in result.stdout


def test_its_own_table_is_read_again(fxpipe, tmp_path):
    root = layouts.multi_region(tmp_path)
    fxpipe("--input", root, "--parts", "3")
    first = shutil.copy(tmp_path / "index.csv", tmp_path / "first.csv")
    fxpipe("--input", first, "--split", "own")
    assert (tmp_path / "index.csv").read_text() == (tmp_path / "first.csv").read_text()


def test_dicom_with_labels_tells_no_identifier(fxpipe, tmp_path):
    headers = [{"PatientID": f"NOBODY-{n:04d}", "BodyPartExamined": "HAND"} for n in range(9)]
    root = layouts.studies(tmp_path, headers)
    labels = sheet(
        tmp_path / "labels.csv",
        [["PatientID", "fractured"], *([f"NOBODY-{n:04d}", n % 2] for n in range(8))],
    )
    result = fxpipe("--input", root, "--labels", labels, "--parts", "3")
    assert "labels: 8 fracture, 1 without a label" in result.stdout
    assert "9 pictures in 9 groups" in result.stdout
    assert "1 of 9 files have no label" in result.stderr
    for text in (result.output, (tmp_path / "index.csv").read_text()):
        for word in (*factories.IDENTIFIERS, "NOBODY"):
            assert word not in text.replace("PatientID", "")


def test_twins_with_two_labels_are_excluded_and_twins_of_two_groups_joined(fxpipe, tmp_path):
    root = layouts.multi_region(tmp_path, leaking=False)
    fractured = root / "train" / "fractured"
    shutil.copy(fractured / "2.jpg", root / "train" / "not fractured" / "copy of 2.jpg")
    shutil.copy(fractured / "3.jpg", fractured / "another name.jpg")
    result = fxpipe("--input", root, "--parts", "3")
    assert "2 pictures share an identical file with a different label" in result.stderr
    assert "excluded: 2 pictures (2 label_conflict)" in result.stdout
    groups = {row.path.name: row.group for row in read_index(tmp_path / "index.csv").samples
              if row.label == 1}  # fmt: skip
    assert groups["another name.jpg"] == groups["3.jpg"]


def test_a_table_without_a_known_column_of_labels_is_2_and_says_which_there_are(fxpipe, tmp_path):
    names = [draw(tmp_path / "x" / f"{n}.png", n).name for n in range(3)]
    rows = [["path", "Befund"], *([name, "Fraktur"] for name in names)]
    result = fxpipe("--input", sheet(tmp_path / "x/my.csv", rows), code=2)
    assert "no known column holds labels, found path, Befund" in result.stderr
    assert "hint: name it: --columns label=COLUMN" in result.stderr
    assert not (tmp_path / "index.csv").exists()


def test_a_long_list_of_faults_is_shortened(fxpipe, tmp_path):
    rows = [["path", "label"], *([f"{n}.png", "1"] for n in range(123))]
    result = fxpipe("--input", sheet(tmp_path / "my.csv", rows), code=1)
    assert "123 fault(s)" in result.stderr
    assert result.stderr.count(" not found") == 10
    assert result.stderr.rstrip().endswith("  - and 113 more")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_as_spreadsheets_save_it(fxpipe, tmp_path, encoding, separator):
    names = [draw(tmp_path / "x" / f"Bild {n} ü.png", n).name for n in range(12)]
    comma = "," if separator == ";" else "."
    lines = ["path label group boxes".replace(" ", separator)]
    for n, name in enumerate(names):
        label, box = f"{n % 2}{comma}0", f"0{comma}25 0 0{comma}5 1"
        lines.append(separator.join((name, label, f"Müller {n // 2}", box if n % 2 else "")))
    source = tmp_path / "x/my.csv"
    source.write_bytes("\r\n".join(lines).encode(encoding))
    result = fxpipe("--input", source, "--parts", "3", "--label-kind", "fracture")
    assert "labels: 12 fracture" in result.stdout
    samples = read_index(tmp_path / "index.csv").samples
    assert {s.group for s in samples} == {f"Müller {n}" for n in range(6)}
    assert {s.boxes for s in samples if s.label} == {((0.25, 0.0, 0.5, 1.0),)}


def test_a_table_in_another_encoding_says_how_to_save_it(fxpipe, tmp_path):
    source = tmp_path / "my.csv"
    source.write_bytes("path,label\nMüller.png,1\n".encode("latin-1"))
    result = fxpipe("--input", source, code=1)
    assert "the byte at 12 is not valid UTF-8, expected UTF-8: save the table as 'CSV UTF-8'" in (
        result.stderr
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_its_own_table_may_have_been_saved_by_a_spreadsheet(fxpipe, tmp_path, encoding):
    root = layouts.multi_region(tmp_path, leaking=False)
    fxpipe("--input", root, "--parts", "3")
    table = tmp_path / "index.csv"
    wanted = read_index(table).samples
    table.write_bytes(table.read_text().replace(",", ";").encode(encoding))
    assert read_index(table).samples == wanted


def test_one_region_of_mura_is_a_data_set(fxpipe, tmp_path):
    root = layouts.mura(tmp_path, patients=12)
    result = fxpipe("--input", root / "train/XR_ELBOW", "--parts", "3")
    assert "read as mura" in result.stderr
    assert {s.regions for s in read_index(tmp_path / "index.csv").samples} == {"elbow"}


def test_what_is_no_data_set_is_2_and_says_what_there_is(fxpipe, tmp_path):
    draw(tmp_path / "odd" / "a.png", 1)
    result = fxpipe("--input", tmp_path / "odd", code=2)
    assert "found a.png, expected one of these layouts" in result.stderr
    assert "- mura: train/ or valid/" in result.stderr
    assert "hint: name the layout with --layout" in result.stderr


def test_a_layout_may_be_said(fxpipe, tmp_path):
    for n in range(4):
        draw(tmp_path / "odd" / "elbow" / f"{n}.png", n)
    result = fxpipe("--input", tmp_path / "odd", "--layout", "folders", "--parts", "3")
    assert "labels: 4 without a label" in result.stdout
    assert {s.regions for s in read_index(tmp_path / "index.csv").samples} == {"elbow"}


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--columns", "path=Scan"), "--columns applies to layout table or dicom"),
        (("--label-kind", "fracture"), "--label-kind applies to layout table or folders or dicom"),
        (("--layout", "mura", "--labels", "x.csv"), "--labels applies to layout dicom"),
        (("--columns", "path"), "expected FIELD=COLUMN"),
    ],
)
def test_options_that_do_not_fit_are_2(fxpipe, tmp_path, words, fault):
    assert fault in fxpipe("--input", layouts.mura(tmp_path), *words, code=2).stderr


def test_faults_are_1_and_leave_no_table(fxpipe, tmp_path):
    root = layouts.mura(tmp_path)
    lost = sorted((root / "train").rglob("image2.png"))[:2]
    for path in lost:
        path.unlink()
    result = fxpipe("--input", root, code=1)
    assert "2 fault(s)" in result.stderr
    assert all(str(path) in result.stderr for path in lost)
    assert not (tmp_path / "index.csv").exists()
