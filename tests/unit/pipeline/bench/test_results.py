"""Figures of ``fxpipe bench``: medians, ratios within a round, time by part."""

from __future__ import annotations

import io
import json
import re

import pytest
from bundles import write_png
from rich.console import Console

from pipeline.bench.job import choose_job
from pipeline.bench.machine import describe, versions
from pipeline.bench.results import PARTS, Spread, measure
from pipeline.bench.rounds import ContenderSpec, JobResult, Round, Score
from pipeline.bench.table import print_table
from pipeline.errors import InputMissingError


def score(name, seconds, device="cpu", parts=None, session=None, peak=10**9) -> Score:
    note = "" if peak else "unknown platform"
    tally = JobResult(10, 7, parts or {})
    rounds = tuple(Round(s, tally, session, peak, note) for s in seconds)
    return Score(ContenderSpec(name, device, None), rounds, {"threads": 2})


def test_spread_is_median_and_extremes():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([1.0, 2.0]).median == 1.5


def test_ratio_is_calculated_within_a_round():
    """A machine that becomes slower for both changes the medians, but not the ratio."""
    slow, fast = measure([score("torch-loop-cpu", [4, 8, 40]), score("x", [1, 2, 10])], 2)
    assert slow.ratio == Spread(1.0, 1.0, 1.0)
    assert fast.ratio == Spread(4.0, 4.0, 4.0)
    assert fast.reference == "torch-loop-cpu"
    assert fast.images_per_s == Spread(5.0, 1.0, 10.0)
    assert fast.seconds == Spread(2, 1, 10)
    assert fast.looks == 7


@pytest.mark.parametrize(
    ("device", "reference"), [("cpu", "cpu"), ("cuda", "cuda"), ("tensorrt", "cuda")]
)
def test_reference_is_the_loop_on_the_same_device(device, reference):
    loops = [score("torch-loop-cpu", [8]), score("torch-loop-cuda", [2], "cuda")]
    row = measure([*loops, score("x", [1], device)], 2)[-1]
    assert row.reference == f"torch-loop-{reference}"
    assert row.ratio.median == (8 if reference == "cpu" else 2)


def test_no_ratio_without_a_reference():
    (row,) = measure([score("x", [1])], 2)
    assert (row.reference, row.ratio, row.session_share) == (None, None, None)
    assert row.parts_ms is None
    assert row.shares == {}


def test_unused_time_of_the_cores_is_idle():
    (row,) = measure([score("x", [2, 2], parts={"decode": 0.5, "trunk": 2.5})], 2)
    assert row.parts_ms is not None
    assert tuple(row.parts_ms) == PARTS
    assert row.parts_ms["trunk"] == 250.0
    assert row.parts_ms["idle"] == 100.0
    assert sum(row.parts_ms.values()) == 2 * 2 / 10 * 1000  # cores x ms per picture
    assert sum(row.shares.values()) == pytest.approx(1.0)
    assert row.shares["trunk"] == pytest.approx(2.5 / 4)


def test_idle_is_never_below_0():
    """With more threads than cores, the seconds of each thread include waiting."""
    (row,) = measure([score("x", [1], parts={"decode": 3.0, "trunk": 1.0})], 2)
    assert row.parts_ms["idle"] == 0.0
    assert row.shares["decode"] == 0.75


def test_share_of_the_speed_of_the_networks_alone():
    (row,) = measure([score("x", [2, 1], session=12.5)], 2)
    assert row.session_images_per_s.median == 12.5
    assert (row.session_share.low, row.session_share.high) == (0.4, 0.8)


def test_figures_are_json():
    rows = measure([score("torch-loop-cpu", [1], peak=None), score("x", [1], session=12.0)], 2)
    values = json.loads(json.dumps([row.to_json() for row in rows], allow_nan=False))
    assert values[0]["peak_mb"] is None
    assert values[0]["peak_note"] == "unknown platform"
    assert values[1]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert values[1]["peak_mb"] == 1000.0


def test_table_fits_a_terminal_and_lists_missing_contenders():
    parts = {"decode": 0.5, "trunk": 1.5}
    rows = measure(
        [
            score("torch-loop-cpu", [45.1, 44.0, 47.9], peak=None),
            score("fxpipe-int8-cpu", [10.1, 9.0, 11.3], parts=parts, session=1.2),
        ],
        2,
    )
    output = io.StringIO()
    reasons = {"fxpipe-int8-cuda": "no [driver]", "fxpipe-fp16-cuda": "no [driver]"}
    print_table(Console(file=output, width=80), rows, reasons, "10 pictures")
    text = output.getvalue()
    row = r"fxpipe-int8-cpu +0\.99 \[0\.88, 1\.11\] +4\.47 \[4\.24, 4\.89\] +10\.1 +1000 *\n"
    assert re.search(row, text)
    assert "82.5 % [73.7, 92.6] of that" in text
    assert "not measured: fxpipe-int8-cuda, fxpipe-fp16-cuda: no [driver]" in text
    assert "peak memory: unknown platform" in text
    assert "10 pictures" in text
    assert "45.1 " in text
    assert "–" in text


def test_files_are_repeated_and_undecodable_ones_skipped(tmp_path):
    for name in ("a", "c"):
        write_png(tmp_path / f"{name}.png", {"hand": 0.9})
    (tmp_path / "b.png").write_bytes(b"")
    job = choose_job(tmp_path, 5)
    assert [path.name for path in job.paths] == ["a.png", "c.png", "a.png", "c.png", "a.png"]
    assert (job.pictures, job.files, job.left_out, job.root) == (5, 2, 1, tmp_path)


def test_only_as_many_files_as_needed_are_opened(tmp_path):
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", {"hand": 0.9})
    (tmp_path / "c.png").write_bytes(b"")
    job = choose_job(tmp_path, 2)
    assert (job.pictures, job.files, job.left_out) == (2, 2, 0)


def test_folder_without_decodable_files_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputMissingError, match="of which none can be decoded"):
        choose_job(tmp_path, 2)


def test_description_of_the_machine():
    facts = describe()
    assert facts["cores"] >= 1
    assert facts["system"]
    assert json.dumps(facts)
    assert versions()["numpy"]
