"""``fxpipe run --parquet``: the values of results.csv with their types, resumed or not."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from bundles import write_bundles, write_png
from click.testing import CliRunner, Result
from factories import dicom, dicom_file, ramp
from pyarrow import parquet

from pipeline.cli import main
from pipeline.report.columns import COLUMNS, RECORD_SCHEMA
from pipeline.report.csv_table import CsvWriter
from pipeline.report.parquet import ParquetWriter

ROOT = Path(__file__).parents[2]
RESULT = Path("results/results.parquet")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder with weights and inputs of every status, one of them with two frames."""
    write_bundles(tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FXPIPE_WEIGHTS", raising=False)
    for i in range(6):
        write_png(tmp_path / f"in/{i}.png", {"hand": 0.9}, {"hand": 0.05 + 0.18 * i})
    write_png(tmp_path / "in/both.png", {"hand": 0.9, "elbow": 0.9}, {"hand": 0.4, "elbow": 0.6})
    write_png(tmp_path / "in/knee.png", {})
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    frames = ramp(64, 48, 0, 4095)
    (tmp_path / "in/z.dcm").write_bytes(dicom_file(dicom(frames[None].repeat(2, axis=0))))
    return tmp_path


def fxpipe(*arguments: object) -> Result:
    words = ["run", "--input", "in", "--device", "cpu", "--set", "isolate=false", "--parquet"]
    return CliRunner().invoke(main, words + [str(word) for word in arguments])


def break_off(rows: int, *arguments: object) -> None:
    """A run that dies when it has written that many rows of results.csv."""
    write = CsvWriter.write
    left = [rows]

    def dying(self, outcome):
        write(self, outcome)
        left[0] -= 1
        if not left[0]:
            raise RuntimeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvWriter, "write", dying)
        assert isinstance(fxpipe(*arguments).exception, RuntimeError)


def from_csv() -> pd.DataFrame:
    """What pandas reads from results.csv, with the types of the columns."""
    kinds = {field.name: str(field.type) for field in parquet.read_schema(RESULT)}
    names = {"int64": "Int64", "double": "float64", "string": "object"}
    return pd.read_csv(
        "results/results.csv", dtype={name: names[kind] for name, kind in kinds.items()},
        keep_default_na=False, na_values=[""],
    )  # fmt: skip


def test_pandas_reads_the_values_of_the_csv(place):
    assert fxpipe("--heatmaps", "all", "--identifiers", "keep").exit_code == 1
    found = pd.read_parquet(RESULT)
    assert list(found.columns) == list(COLUMNS)
    wanted = from_csv()
    assert len(found) == len(wanted) == 11
    assert set(found["status"]) == {"ok", "unsupported", "failed"}
    assert found["probability"].dtype == "float64"
    for name in COLUMNS:
        ours, theirs = found[name], wanted[name]
        assert list(ours.isna()) == list(theirs.isna()), name
        assert list(ours.dropna()) == list(theirs.dropna()), name


def test_types_and_the_version_of_the_columns(place):
    fxpipe()
    schema = parquet.read_schema(RESULT)
    kinds = {field.name: (str(field.type), field.nullable) for field in schema}
    wanted = {
        "path": ("string", False), "frame": ("int64", True), "status": ("string", False),
        "p_hand": ("double", True), "verdict": ("string", True), "elapsed_ms": ("double", False),
        "bundle_digests": ("string", False), "patient_id": ("string", True),
    }  # fmt: skip
    assert {name: kinds[name] for name in wanted} == wanted
    assert schema.metadata[b"fxpipe_schema_version"] == str(RECORD_SCHEMA).encode()


@pytest.mark.parametrize("rows", [1, 5, 11])
def test_a_resumed_run_has_every_row_with_its_heatmap(place, rows):
    break_off(rows, "--heatmaps", "all")
    assert not RESULT.exists()
    result = fxpipe("--heatmaps", "all")
    assert result.exit_code == 1, result.output
    assert ("resuming the unfinished run" in result.stderr) == (rows > 1)
    with Path("results/results.csv").open(encoding="utf-8", newline="") as file:
        wanted = [(row["path"], row["heatmap"]) for row in csv.DictReader(file)]
    found = [(row["path"], row["heatmap"] or "") for row in parquet.read_table(RESULT).to_pylist()]
    assert found == wanted
    assert sum(bool(heatmap) for _, heatmap in found) == 7


def test_a_run_that_dies_while_the_table_is_written_can_be_resumed(place, monkeypatch):
    groups = ParquetWriter._groups

    def dying(self):
        yield next(groups(self))
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(ParquetWriter, "_groups", dying)
        assert isinstance(fxpipe().exception, RuntimeError)
    assert not RESULT.exists()
    assert not list(Path("results").glob("*.partial"))
    result = fxpipe()
    assert "9 files done" in result.stderr  # the last one counts when the next would begin
    assert len(parquet.read_table(RESULT)) == 11


def test_row_groups_hold_all_rows_once(place, monkeypatch):
    monkeypatch.setattr("pipeline.report.parquet._ROWS", 4)
    fxpipe()
    file = parquet.ParquetFile(RESULT)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 3]
    assert pd.read_parquet(RESULT)["path"].tolist() == from_csv()["path"].tolist()


def test_an_older_table_is_gone_when_a_run_breaks_off(place):
    fxpipe()
    assert RESULT.exists()
    break_off(3)
    assert not RESULT.exists()


def test_without_it_a_run_writes_none_and_needs_no_pyarrow(place):
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['run', '--input', 'in', '--device', 'cpu', '--quiet'])\n"
        "except SystemExit as leave: assert leave.code == 1, leave.code\n"
        "print('pipeline.report.parquet' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout == "False\n"
    assert not RESULT.exists()


def test_without_the_extra_it_says_what_to_install_before_anything_is_written(place):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pipeline.cli import main\n"
        "main(['run', '--input', 'in', '--device', 'cpu', '--parquet'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 3
    assert "the module 'pyarrow' is not installed" in result.stderr
    assert 'pip install "fxpipe[parquet]"' in result.stderr
    assert not Path("results").exists()
