"""Results do not depend on the batch size and the number of threads."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import RunConfig
from pipeline.engine import run
from pipeline.io import discover
from pipeline.outcome import Outcome
from pipeline.report.csv_table import CsvWriter
from pipeline.report.json_lines import JsonLinesWriter
from pipeline.runtime.session import Weights, load_bundles

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
TIMING = "elapsed_ms"


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_bundles(ROOT / "weights", RunConfig(device="cpu"))


def written(outcomes: Iterator[Outcome], folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of results.csv and lines of results.jsonl, without times."""
    folder.mkdir()
    table, lines = folder / "results.csv", folder / "results.jsonl"
    with CsvWriter(table, SAMPLES) as first, JsonLinesWriter(lines, SAMPLES) as second:
        for outcome in outcomes:
            first.write(outcome)
            second.write(outcome)
    with table.open(encoding="utf-8", newline="") as file:
        rows = [{**row, TIMING: ""} for row in csv.DictReader(file)]
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    return rows, [json.dumps({**record, TIMING: None}) for record in records]


def test_results_do_not_depend_on_batches_or_threads(weights, tmp_path):
    results = {}
    for size, workers in ((1, 1), (1, 3), (2, 1), (5, 3)):
        config = RunConfig(device="cpu", batch_size=size, workers=workers)
        outcomes = run(discover(SAMPLES), weights, config)
        results[size, workers] = written(outcomes, tmp_path / f"{size}-{workers}")
    reference = results[1, 1]
    assert len(reference[0]) == sum(1 for _ in discover(SAMPLES))
    assert {key for key, value in results.items() if value != reference} == set()
