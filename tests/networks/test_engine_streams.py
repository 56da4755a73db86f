"""Order, batches, lanes and read-ahead of the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import SPEC, spec, standard_specs, write_png
from engine_runs import CPU, judge, mixed_files, open_bundles

from pipeline.bundle import Kind
from pipeline.config import RunConfig
from pipeline.engine import Engine, run
from pipeline.io import MemoryBudget
from pipeline.judge import Judge
from pipeline.outcome import Status
from pipeline.reading import in_process
from pipeline.reading.prepared_picture import Prepared, ReadOptions
from pipeline.timing import Clock


def test_one_outcome_per_input_in_order_with_failures(weights, tmp_path):
    paths = mixed_files(tmp_path, 23)
    outcomes = judge(paths, weights)
    assert [outcome.image.path for outcome in outcomes] == paths
    bad = [i for i, outcome in enumerate(outcomes) if outcome.status is Status.FAILED]
    assert bad == [3, 8, 13, 18]
    assert all(outcomes[i].error and outcomes[i].image.sha256 for i in bad)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_outcomes_do_not_depend_on_batch_size(weights, tmp_path, size):
    paths = mixed_files(tmp_path, 18)
    reference = judge(paths, weights, batch_size=8)
    for one, other in zip(judge(paths, weights, batch_size=size), reference, strict=True):
        assert (one.status, one.image) == (other.status, other.image)
        assert [f.region for f in one.findings] == [f.region for f in other.findings]
        for a, b in zip(one.findings, other.findings, strict=True):
            assert a.probability == pytest.approx(b.probability, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 1e-4),
        ({"pad_value": 0.5}, 1e-4),  # other preprocessing, equal arrays
        ({"height_px": 64, "width_px": 64}, 1.0),  # blurred cells: only the routing is equal
    ],
)
def test_complete_networks_and_heads_together(weights, tmp_path, changes, tolerance):
    """A specialist gives the same result on the shared trunk and as a complete network."""
    specs = standard_specs()
    canvas = SPEC.model_copy(update=changes)
    specs[3] = spec("fracture-hand", Kind.FRACTURE, input="image", trunk=None, preprocess=canvas)
    mixed = open_bundles(tmp_path / "w", specs)
    paths = mixed_files(tmp_path, 18)
    for one, other in zip(judge(paths, mixed), judge(paths, weights), strict=True):
        assert [f.region for f in one.findings] == [f.region for f in other.findings]
        for a, b in zip(one.findings, other.findings, strict=True):
            assert a.probability == pytest.approx(b.probability, abs=tolerance)


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_outcomes_do_not_depend_on_number_of_lanes(weights, tmp_path, monkeypatch, lanes):
    paths = mixed_files(tmp_path, 18)
    reference = judge(paths, weights)
    monkeypatch.setattr(RunConfig, "lanes", lanes)
    outcomes = judge(paths, weights, batch_size=2)
    assert [outcome.image for outcome in outcomes] == [outcome.image for outcome in reference]
    assert [o.findings for o in outcomes] == [o.findings for o in reference]


def test_number_of_files_read_ahead_is_limited(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {})
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield path

    outcomes = run(endless(), weights, CPU)
    for _ in range(20):
        next(outcomes)
    # Two batches per lane, two being read, and the one that contains the twentieth outcome.
    assert taken <= 20 + (2 * CPU.lanes + 3) * CPU.batch_size
    outcomes.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("fxpipe-")]


def test_number_of_failed_files_ahead_is_limited(weights, tmp_path):
    good = write_png(tmp_path / "a.png", {"hand": 0.9}, {})
    bad = tmp_path / "b.png"
    bad.write_bytes(b"")
    taken = 0

    def paths() -> Iterator[Path]:
        nonlocal taken
        for path in [good, *[bad] * 5000]:
            taken += 1
            yield path

    first = next(run(paths(), weights, CPU))
    assert first.status is Status.OK
    assert taken <= (2 * CPU.lanes * 8 + 4) * CPU.batch_size


def test_outcome_does_not_wait_for_the_next_file(weights, tmp_path):
    """The source blocks after one picture, until its outcome has arrived."""
    more, path = threading.Event(), write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.9})

    def source() -> Iterator[Path]:
        yield path
        assert more.wait(30.0)
        yield path

    outcomes = run(source(), weights, CPU)
    first = next(outcomes)
    assert (first.status, more.is_set()) == (Status.OK, False)
    more.set()
    assert next(outcomes).findings == first.findings
    assert next(outcomes, None) is None


def test_unordered_outcome_does_not_wait_for_a_slow_file(weights, tmp_path):
    resume = threading.Event()

    class Slow(in_process.InProcessReader):
        def read(self, source, options, clock):
            if source.name == "slow.png":
                assert resume.wait(30.0)
            return super().read(source, options, clock)

    paths = [write_png(tmp_path / name, {"hand": 0.9}, {}) for name in ("slow.png", "quick.png")]
    engine = Engine(weights, CPU, Slow(MemoryBudget(10**6)))
    outcomes = engine.outcomes(paths, ordered=False)
    assert next(outcomes).image.name == "quick.png"
    resume.set()
    assert [outcome.image.name for outcome in outcomes] == ["slow.png"]


def test_judge_accepts_prepared_pictures(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.9})
    options = ReadOptions(weights.preprocessings)
    (item,) = in_process.InProcessReader(MemoryBudget(10**6)).read(path, options, Clock())
    assert isinstance(item, Prepared)
    (outcome,) = Judge(weights, CPU).judge([item])
    (same,) = judge([path], weights)
    assert (outcome.findings, outcome.image) == (same.findings, same.image)
    assert Judge(weights, CPU).judge([]) == []


def test_clock_measures_every_stage(weights, tmp_path):
    clock = Clock()
    assert list(run(mixed_files(tmp_path, 9), weights, CPU, clock))
    assert set(clock.seconds) == {"read", "decode", "resize", "trunk", "heads"}
    assert all(seconds > 0.0 for seconds in clock.seconds.values())
