"""Rows of the samples with the shipped weights.

``sample-rows.csv`` is the ``results.csv`` of a run on ``samples/``, without times and digests. It
changes only with the weights or with a decision on how pictures are judged.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from command_line import fxpipe

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("sample-rows.csv")
TOLERANCE = 0.02
"""int8 graphs are exact; what follows them in float32 depends on the processor."""


def test_rows_of_the_samples_are_unchanged(tmp_path):
    words = ("--input", str(ROOT / "samples"), "--weights", str(ROOT / "weights"))
    result = fxpipe("run", *words, "--output", str(tmp_path), "--device", "cpu", "--quiet")
    assert result.exit_code == 1, result.output  # one sample is truncated
    with (tmp_path / "results.csv").open(newline="") as table, GOLDEN.open(newline="") as golden:
        rows, expected = list(csv.DictReader(table)), list(csv.DictReader(golden))
    assert [row["path"] for row in rows] == [row["path"] for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        for column, value in wanted.items():
            if is_number(value):
                assert float(row[column]) == pytest.approx(float(value), abs=TOLERANCE), column
            else:
                assert row[column] == value, (row["path"], column)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
