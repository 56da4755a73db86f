"""``fxpipe run --parquet``: the values of results.csv with their types, resumed or not."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from bundles import write_png
from click.testing import Result
from command_line import break_off, fxpipe, run_python
from factories import dicom, dicom_file, ramp
from pyarrow import parquet

from pipeline.report.columns import COLUMNS, RECORD_SCHEMA

ROOT = Path(__file__).parents[2]
RESULT = Path("results/results.parquet")


@pytest.fixture
def place(place) -> Path:
    """A working folder with weights and inputs of every status, one of them with two frames."""
    for i in range(6):
        write_png(place / f"in/{i}.png", {"hand": 0.9}, {"hand": 0.05 + 0.18 * i})
    write_png(place / "in/both.png", {"hand": 0.9, "elbow": 0.9}, {"hand": 0.4, "elbow": 0.6})
    write_png(place / "in/knee.png", {})
    (place / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    frames = ramp(64, 48, 0, 4095)
    (place / "in/z.dcm").write_bytes(dicom_file(dicom(frames[None].repeat(2, axis=0))))
    return place


def run(*arguments: object) -> Result:
    return fxpipe(
        *("run", "--input", "in", "--device", "cpu", "--set", "isolate=false", "--parquet"),
        *arguments,
    )


def from_csv() -> pd.DataFrame:
    """The content of results.csv, read by pandas with the types of the Parquet columns."""
    kinds = {field.name: str(field.type) for field in parquet.read_schema(RESULT)}
    names = {"int64": "Int64", "double": "float64", "string": "object"}
    return pd.read_csv(
        "results/results.csv", dtype={name: names[kind] for name, kind in kinds.items()},
        keep_default_na=False, na_values=[""],
    )  # fmt: skip


def test_values_are_those_of_the_csv(place):
    assert run("--heatmaps", "all", "--identifiers", "keep").exit_code == 1
    table = pd.read_parquet(RESULT)
    assert list(table.columns) == list(COLUMNS)
    csv_table = from_csv()
    assert len(table) == len(csv_table) == 11
    assert set(table["status"]) == {"ok", "unsupported", "failed"}
    assert table["probability"].dtype == "float64"
    for name in COLUMNS:
        actual, expected = table[name], csv_table[name]
        assert list(actual.isna()) == list(expected.isna()), name
        assert list(actual.dropna()) == list(expected.dropna()), name


def test_schema_has_types_and_version_of_the_columns(place):
    run()
    schema = parquet.read_schema(RESULT)
    kinds = {field.name: (str(field.type), field.nullable) for field in schema}
    expected = {
        "path": ("string", False), "frame": ("int64", True), "status": ("string", False),
        "p_hand": ("double", True), "verdict": ("string", True), "elapsed_ms": ("double", False),
        "bundle_digests": ("string", False), "patient_id": ("string", True),
    }  # fmt: skip
    assert {name: kinds[name] for name in expected} == expected
    assert schema.metadata[b"fxpipe_schema_version"] == str(RECORD_SCHEMA).encode()


@pytest.mark.parametrize("rows", [1, 5, 11])
def test_resumed_run_has_every_row_with_its_heatmap(place, rows):
    break_off(rows, lambda: run("--heatmaps", "all"))
    assert not RESULT.exists()
    result = run("--heatmaps", "all")
    assert result.exit_code == 1, result.output
    assert ("resuming the unfinished run" in result.stderr) == (rows > 1)
    with Path("results/results.csv").open(encoding="utf-8", newline="") as file:
        expected = [(row["path"], row["heatmap"]) for row in csv.DictReader(file)]
    table = parquet.read_table(RESULT).to_pylist()
    assert [(row["path"], row["heatmap"] or "") for row in table] == expected
    assert sum(bool(heatmap) for _, heatmap in expected) == 7


def test_run_that_fails_while_the_table_is_written_can_be_resumed(place, monkeypatch):
    write_table = parquet.ParquetWriter.write_table

    def write_and_fail(self, table):
        write_table(self, table)
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(parquet.ParquetWriter, "write_table", write_and_fail)
        with pytest.raises(RuntimeError):
            run()
    assert not RESULT.exists()
    assert not list(Path("results").glob("*.partial"))
    result = run()
    assert "9 files done" in result.stderr  # the last one is final only when another begins
    assert len(parquet.read_table(RESULT)) == 11


def test_row_groups_contain_all_rows_once(place, monkeypatch):
    monkeypatch.setattr("pipeline.report.parquet.GROUP_ROWS", 4)
    run()
    file = parquet.ParquetFile(RESULT)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 3]
    assert pd.read_parquet(RESULT)["path"].tolist() == from_csv()["path"].tolist()


def test_older_table_is_removed_at_the_start_of_a_run(place):
    run()
    assert RESULT.exists()
    break_off(3, run)
    assert not RESULT.exists()


def test_run_without_the_option_does_not_import_pyarrow(place):
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['run', '--input', 'in', '--device', 'cpu', '--quiet'])\n"
        "except SystemExit as leave: assert leave.code == 1, leave.code\n"
        "print('pipeline.report.parquet' in sys.modules)"
    )
    result = run_python(code)
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr
    assert not RESULT.exists()


def test_missing_extra_is_reported_before_anything_is_written(place):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pipeline.cli import main\n"
        "main(['run', '--input', 'in', '--device', 'cpu', '--parquet'])"
    )
    result = run_python(code)
    assert result.returncode == 3
    assert "the module 'pyarrow' is not installed" in result.stderr
    assert 'pip install "fxpipe[parquet]"' in result.stderr
    assert not Path("results").exists()
