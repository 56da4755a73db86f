"""``fxpipe index``: tables from every layout, exit codes and messages."""

from __future__ import annotations

import shutil

import command_line
import factories
import layouts
import pytest
from layouts import cut, draw, sheet
from tables import fracatlas_folder

from pipeline.cli.index import LAYOUTS as OPTION_LAYOUTS
from stages.data.adapters.layouts import LAYOUTS
from stages.data.index import read_index, read_table


@pytest.fixture
def build_index(tmp_path):
    """A function that runs ``fxpipe index`` and writes index.csv."""

    def run(*words, code=0):
        result = command_line.fxpipe("index", *words, "--output", tmp_path / "index.csv")
        assert result.exit_code == code, result.output
        return result

    return run


def test_every_layout_is_an_option():
    assert set(OPTION_LAYOUTS) == {"auto", *LAYOUTS}


def test_mura_is_split_by_patient(build_index, tmp_path):
    root = layouts.mura(tmp_path, patients=12)
    result = build_index("--input", root, "--parts", "3")
    index = read_index(tmp_path / "index.csv")
    assert len(index.samples) == 2 * (12 * 2 + 1)
    assert {s.label_kind for s in index.samples} == {"abnormality"}
    assert "labels: 50 abnormality" in result.stdout
    assert f"50 pictures in 12 groups, {index.digest[:12]}" in result.stdout
    assert "excluded" not in result.stdout
    assert "1 hidden files were skipped" in result.stderr
    assert f"{root}: read as mura" in result.stderr


def test_mura_keeps_its_own_split(build_index, tmp_path):
    root = layouts.mura(tmp_path, patients=16)
    build_index("--input", root, "--split", "own", "--parts", "3", "--quiet")
    index = read_index(tmp_path / "index.csv")
    for row in index.samples:
        assert (row.split == "test") == ("/valid/" in row.path.as_posix())
    assert index.of("val")


def test_one_part_of_mura_has_no_split(build_index, tmp_path):
    root = layouts.mura(tmp_path)
    result = build_index("--input", root / "train", "--split", "own", code=2)
    assert "the data set has only train" in result.stderr
    assert "hint: split it by patient" in result.stderr
    assert not (tmp_path / "index.csv").exists()


def test_leaks_in_the_split_of_the_multi_region_set_are_reported(build_index, tmp_path):
    root = layouts.multi_region(tmp_path)
    refused = build_index("--input", root, "--split", "own", code=1)
    words = "test: of 2 pictures, 2 are in train byte for byte and 2 share a group with it"
    assert words in refused.stderr
    assert "--allow-leaks" in refused.stderr
    assert not (tmp_path / "index.csv").exists()
    result = build_index("--input", root, "--split", "own", "--allow-leaks")
    assert f"leak: {words}" in result.stdout
    assert "are not valid for new patients" in result.stdout
    splits = [row.split for row in read_table(tmp_path / "index.csv").samples]
    assert (splits.count("test"), splits.count("val")) == (2, 2)


def test_multi_region_set_split_by_patient_has_no_leaks(build_index, tmp_path):
    result = build_index("--input", layouts.multi_region(tmp_path), "--parts", "3")
    assert "leak" not in result.stdout
    index = read_index(tmp_path / "index.csv")
    assert {row.label_kind for row in index.samples} == {"fracture"}
    assert all(index.of(split) for split in ("train", "val", "test"))


def test_original_split_without_leaks_needs_no_permission(build_index, tmp_path):
    root = layouts.multi_region(tmp_path, leaking=False)
    result = build_index("--input", root, "--split", "own")
    assert "leak" not in result.stdout
    assert len(read_index(tmp_path / "index.csv").of("test")) == 2


def test_split_by_picture_is_written_and_its_leaks_are_reported(build_index, tmp_path):
    root = layouts.mura(tmp_path, patients=12)
    result = build_index("--input", root, "--split", "picture")
    assert "share a group with it" in result.stdout
    assert result.stdout.index("leak: test: of") < result.stdout.index("are not valid for new")
    assert len(read_table(tmp_path / "index.csv").samples) == 50


def test_negatives_are_distributed_over_the_splits(build_index, tmp_path):
    root = layouts.multi_region(tmp_path, leaking=False)
    for n in range(7):
        draw(tmp_path / "knees" / f"{n}.png", 900 + n)
    build_index("--input", root, "--split", "own", "--negatives", tmp_path / "knees")
    index = read_index(tmp_path / "index.csv")
    shares = [sum(s.regions == "none" for s in index.of(x)) for x in ("train", "val", "test")]
    assert shares == [5, 1, 1]


@pytest.mark.parametrize("split", ["own", "patient"])
def test_held_out_origin_is_only_in_test(build_index, tmp_path, split):
    root = layouts.multi_region(tmp_path, leaking=False)
    rows = [["file", "original_path", "licence"]]
    for n in range(14):
        file = f"{'spines' if n % 2 else 'photos'}/{n}.png"
        draw(tmp_path / "negatives" / file, 900 + n)
        rows.append([file, f"{'abcdefghijklmn'[n]}.png", "CC0" if n % 2 else "CC BY 4.0; a site"])
    sheet(tmp_path / "negatives" / "SOURCES.csv", rows)
    draw(tmp_path / "knees" / "a.png", 800)
    result = build_index(
        *("--input", root, "--split", split, "--parts", "3", "--hold-out", "negatives/photos"),
        *("--negatives", tmp_path / "negatives", "--negatives", tmp_path / "knees"),
    )
    index = read_index(tmp_path / "index.csv")
    splits_by_origin = {origin: {s.split for s in index.samples if s.origin == origin}
             for origin in ("negatives/photos", "negatives/spines")}  # fmt: skip
    assert splits_by_origin["negatives/photos"] == {"test"}
    assert {"train", "test"} <= splits_by_origin["negatives/spines"]
    assert index.of("val")
    assert "held out for testing only: 7 pictures" in result.stdout
    assert "  7 CC BY 4.0; a site: 7 negatives/photos\n" in result.stdout
    assert "  7 CC0: 7 negatives/spines\n" in result.stdout
    assert " not stated: " in result.stdout


def test_unknown_origin_exits_2(build_index, tmp_path):
    root = layouts.mura(tmp_path, patients=12)
    result = build_index("--input", root, "--hold-out", "mura/XR_ELBO", code=2)
    assert "no row has this origin" in result.stderr
    assert "did you mean" in result.stderr
    assert not (tmp_path / "index.csv").exists()


def test_fracatlas_in_the_distributed_layout(build_index, tmp_path):
    rows = [{"image_id": f"a{n}.jpg", "leg": 1, "fractured": n % 2} for n in range(20)]
    root = layouts.fracatlas(tmp_path, rows)
    cut(root / "images/Non_fractured/a0.jpg")
    (root / "images/Fractured/a1.jpg").rename(root / "images/Non_fractured/a1.jpg")
    result = build_index("--input", root.parent / "FracAtlas", "--parts", "3")
    assert "labels: 20 fracture" in result.stdout
    assert "excluded: 2 pictures (1 truncated, 1 label_conflict)" in result.stdout
    index = read_index(tmp_path / "index.csv")
    assert len([s for s in index.samples if s.boxes]) == 10


def test_fracatlas_table_with_negatives(build_index, tmp_path):
    root = fracatlas_folder(tmp_path / "data")
    draw(tmp_path / "knees" / "a.png", 900)
    result = build_index("--input", root, "--negatives", tmp_path / "knees", "--quiet")
    assert "labels: 113 fracture, 1 without a label" in result.stdout
    assert "excluded: 1 pictures (1 truncated)" in result.stdout
    assert "114 pictures" in result.stdout
    assert result.stderr == ""


def test_table_with_named_columns(build_index, tmp_path):
    names = [draw(tmp_path / "x" / f"{n}.png", n).name for n in range(12)]
    table = sheet(
        tmp_path / "x" / "my.csv",
        [["Scan", "Outcome", "Person"], *([name, n % 2, n // 2] for n, name in enumerate(names))],
    )
    columns = ("--columns", "path=Scan,label=Outcome", "--columns", "group=Person")
    result = build_index("--input", table, *columns, "--parts", "3")
    assert "labels: 12 unknown" in result.stdout
    assert "12 pictures in 6 groups" in result.stdout
    assert "columns path=Scan, label=Outcome, group=Person" in result.stderr
    result = build_index("--input", table, *columns, "--parts", "3", "--label-kind", "fracture")
    assert "labels: 12 fracture" in result.stdout


def test_written_table_can_be_read_as_input(build_index, tmp_path):
    root = layouts.multi_region(tmp_path)
    build_index("--input", root, "--parts", "3")
    first = shutil.copy(tmp_path / "index.csv", tmp_path / "first.csv")
    build_index("--input", first, "--split", "own")
    assert (tmp_path / "index.csv").read_text() == (tmp_path / "first.csv").read_text()


def test_dicom_with_labels_reveals_no_identifier(build_index, tmp_path):
    headers = [{"PatientID": f"NOBODY-{n:04d}", "BodyPartExamined": "HAND"} for n in range(9)]
    root = layouts.studies(tmp_path, headers)
    labels = sheet(
        tmp_path / "labels.csv",
        [["PatientID", "fractured"], *([f"NOBODY-{n:04d}", n % 2] for n in range(8))],
    )
    result = build_index("--input", root, "--labels", labels, "--parts", "3")
    assert "labels: 8 fracture, 1 without a label" in result.stdout
    assert "9 pictures in 9 groups" in result.stdout
    assert "1 of 9 files have no label" in result.stderr
    for text in (result.output, (tmp_path / "index.csv").read_text()):
        for word in (*factories.IDENTIFIERS, "NOBODY"):
            assert word not in text.replace("PatientID", "")


def test_identical_files_with_different_labels_are_excluded_and_their_groups_joined(
    build_index, tmp_path
):
    root = layouts.multi_region(tmp_path, leaking=False)
    fractured = root / "train" / "fractured"
    shutil.copy(fractured / "2.jpg", root / "train" / "not fractured" / "copy of 2.jpg")
    shutil.copy(fractured / "3.jpg", fractured / "another name.jpg")
    result = build_index("--input", root, "--parts", "3")
    assert "2 pictures share an identical file with a different label" in result.stderr
    assert "excluded: 2 pictures (2 label_conflict)" in result.stdout
    groups = {row.path.name: row.group for row in read_index(tmp_path / "index.csv").samples
              if row.label == 1}  # fmt: skip
    assert groups["another name.jpg"] == groups["3.jpg"]


def test_table_without_label_column_exits_2_and_lists_its_columns(build_index, tmp_path):
    names = [draw(tmp_path / "x" / f"{n}.png", n).name for n in range(3)]
    rows = [["path", "Befund"], *([name, "Fraktur"] for name in names)]
    result = build_index("--input", sheet(tmp_path / "x/my.csv", rows), code=2)
    assert "no known column holds labels, found path, Befund" in result.stderr
    assert "hint: name it: --columns label=COLUMN" in result.stderr
    assert not (tmp_path / "index.csv").exists()


def test_long_list_of_faults_is_shortened(build_index, tmp_path):
    rows = [["path", "label"], *([f"{n}.png", "1"] for n in range(123))]
    result = build_index("--input", sheet(tmp_path / "my.csv", rows), code=1)
    assert "123 fault(s)" in result.stderr
    assert result.stderr.count(" not found") == 10
    assert result.stderr.rstrip().endswith("  - and 113 more")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_saved_by_spreadsheets_are_read(build_index, tmp_path, encoding, separator):
    names = [draw(tmp_path / "x" / f"Bild {n} ü.png", n).name for n in range(12)]
    comma = "," if separator == ";" else "."
    lines = ["path label group boxes".replace(" ", separator)]
    for n, name in enumerate(names):
        label, box = f"{n % 2}{comma}0", f"0{comma}25 0 0{comma}5 1"
        lines.append(separator.join((name, label, f"Müller {n // 2}", box if n % 2 else "")))
    source = tmp_path / "x/my.csv"
    source.write_bytes("\r\n".join(lines).encode(encoding))
    result = build_index("--input", source, "--parts", "3", "--label-kind", "fracture")
    assert "labels: 12 fracture" in result.stdout
    samples = read_index(tmp_path / "index.csv").samples
    assert {s.group for s in samples} == {f"Müller {n}" for n in range(6)}
    assert {s.boxes for s in samples if s.label} == {((0.25, 0.0, 0.5, 1.0),)}


def test_other_encoding_is_reported_with_a_hint(build_index, tmp_path):
    source = tmp_path / "my.csv"
    source.write_bytes("path,label\nMüller.png,1\n".encode("latin-1"))
    result = build_index("--input", source, code=1)
    assert "the byte at 12 is not valid UTF-8, expected UTF-8: save the table as 'CSV UTF-8'" in (
        result.stderr
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_index_saved_by_a_spreadsheet_is_read(build_index, tmp_path, encoding):
    root = layouts.multi_region(tmp_path, leaking=False)
    build_index("--input", root, "--parts", "3")
    table = tmp_path / "index.csv"
    samples = read_index(table).samples
    table.write_bytes(table.read_text().replace(",", ";").encode(encoding))
    assert read_index(table).samples == samples


def test_one_region_of_mura_is_accepted(build_index, tmp_path):
    root = layouts.mura(tmp_path, patients=12)
    result = build_index("--input", root / "train/XR_ELBOW", "--parts", "3")
    assert "read as mura" in result.stderr
    assert {s.regions for s in read_index(tmp_path / "index.csv").samples} == {"elbow"}


def test_unknown_layout_exits_2_and_lists_the_layouts(build_index, tmp_path):
    draw(tmp_path / "odd" / "a.png", 1)
    result = build_index("--input", tmp_path / "odd", code=2)
    assert "found a.png, expected one of these layouts" in result.stderr
    assert "- mura: train/ or valid/" in result.stderr
    assert "hint: name the layout with --layout" in result.stderr


def test_layout_can_be_named(build_index, tmp_path):
    for n in range(4):
        draw(tmp_path / "odd" / "elbow" / f"{n}.png", n)
    result = build_index("--input", tmp_path / "odd", "--layout", "folders", "--parts", "3")
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
def test_options_of_other_layouts_exit_2(build_index, tmp_path, words, fault):
    assert fault in build_index("--input", layouts.mura(tmp_path), *words, code=2).stderr


def test_faults_exit_1_and_write_no_table(build_index, tmp_path):
    root = layouts.mura(tmp_path)
    lost = sorted((root / "train").rglob("image2.png"))[:2]
    for path in lost:
        path.unlink()
    result = build_index("--input", root, code=1)
    assert "2 fault(s)" in result.stderr
    assert all(str(path) in result.stderr for path in lost)
    assert not (tmp_path / "index.csv").exists()
