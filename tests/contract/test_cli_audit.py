"""``fxpipe audit``: exit codes, files and messages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import fxpipe
from PIL import Image
from tables import sample

from stages.data.index import write_index

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = ("IMG0000049.jpg", "IMG0000346.jpg", "IMG0000511.jpg")


@pytest.fixture
def table(tmp_path):
    """A table without leaks: three radiographs, one in each split."""
    rows = []
    for name, split in zip(NAMES, ("train", "val", "test"), strict=True):
        shutil.copy(SAMPLES / name, tmp_path / name)
        rows.append(sample(name, path=tmp_path / name, split=split))
    write_index(rows, tmp_path / "index.csv")
    return tmp_path / "index.csv"


def audit(*words):
    return fxpipe("audit", *words)


def test_table_without_leaks_exits_0_and_writes_three_files(table, tmp_path):
    result = audit("--index", table, "--output", tmp_path / "audit", "--quiet")
    assert result.exit_code == 0, result.output
    assert "no leak was found" in result.stdout
    assert "test: 0 of 1 pictures (0.0%) are in train too" in result.stdout
    assert result.stderr == ""
    files = {path.name for path in (tmp_path / "audit").iterdir()}
    assert files == {"audit.html", "pairs.csv", "audit.json"}


def test_leak_exits_1_and_is_reported(table, tmp_path):
    with Image.open(SAMPLES / NAMES[0]) as image:
        image.convert("L").rotate(180).resize((200, 200)).save(tmp_path / "copy.jpg", quality=50)
    line = table.read_text().splitlines()[1].replace("train", "test")
    line = line.replace(NAMES[0], "copy.jpg")
    table.write_text(table.read_text() + line + "\n")
    result = audit("--index", table, "--output", tmp_path / "audit")
    assert result.exit_code == 1
    assert "test: 1 of 2 pictures (50.0%) are in train too" in result.stdout
    assert "the splits leak" in result.stdout
    counts = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert counts["leaks"] == {"near duplicate": 1}


def test_missing_picture_exits_1_and_is_named(table, tmp_path):
    (tmp_path / NAMES[2]).unlink()
    result = audit("--index", table, "--output", tmp_path / "audit")
    assert result.exit_code == 1
    assert "1 unreadable" in result.stdout
    assert NAMES[2] in (tmp_path / "audit" / "pairs.csv").read_text()


def test_missing_table_exits_2(tmp_path):
    result = audit("--index", tmp_path / "none.csv")
    assert result.exit_code == 2
    assert "none.csv" in result.stderr
    assert "hint:" in result.stderr


def test_default_paths_are_in_the_working_folder(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert audit().exit_code == 0
    assert (tmp_path / "audit" / "audit.html").is_file()
