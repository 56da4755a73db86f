"""Contenders in separate processes: order of turns, and handling of failures."""

from __future__ import annotations

from pathlib import Path

import pytest
from contenders import fake

from pipeline.bench.job import Job
from pipeline.bench.rounds import ContenderSpec, run_rounds
from pipeline.progress import Silent

pytestmark = pytest.mark.slow

JOB = Job(Path("in"), tuple(Path(f"in/{i}.png") for i in range(5)), 5, 5, 0)


def log_of(file: Path) -> list[str]:
    return file.read_text().splitlines()


class Counted(Silent):
    count = 0

    def advance(self) -> None:
        self.count += 1


def test_order_of_turns_is_reversed_in_the_next_round(tmp_path):
    log, progress = tmp_path / "log", Counted()
    entrants = [fake(name, log) for name in "abc"]
    scores, reasons = run_rounds(entrants, JOB, 2, 3, session=True, progress=progress)
    warm_up, first, second = ("a 3", "b 3", "c 3"), ("a 5", "b 5", "c 5"), ("c 5", "b 5", "a 5")
    assert log_of(log) == [*warm_up, *first, *second]
    assert reasons == {}
    assert [score.entrant.name for score in scores] == ["a", "b", "c"]
    assert all(len(score.rounds) == 2 for score in scores)
    assert all(done.seconds > 0 and done.tally.pictures == 5 for done in scores[0].rounds)
    assert {done.session_images_per_s for score in scores for done in score.rounds} == {10.0}
    assert scores[0].facts["jobs"] == 3
    assert progress.count == 3 + 2 * 3


def test_networks_alone_are_measured_on_request(tmp_path):
    (score,), _ = run_rounds([fake("a", tmp_path / "log")], JOB, 1, 3, False, Silent())
    assert score.rounds[0].session_images_per_s is None


def test_peak_memory_excludes_the_parent_process(tmp_path):
    allocated = bytearray(400 * 10**6)
    allocated[::1024] = b"x" * len(allocated[::1024])
    (score,), _ = run_rounds([fake("a", tmp_path / "log")], JOB, 1, 3, False, Silent())
    (done,) = score.rounds
    if done.peak_bytes is None:
        assert done.peak_note
    else:
        assert 10**7 < done.peak_bytes < len(allocated)


@pytest.mark.parametrize(
    ("how", "fails_at", "reason"),
    [
        ("leaves", 0, "the process ended with exit code 7"),
        ("leaves", 2, "the process ended with exit code 7"),
        ("refuses", 0, "no memory left (buy some)"),
        ("refuses", 1, "no memory left (buy some)"),
        ("forgets", 1, "it wrote 4 rows, expected 5"),
    ],
)
def test_failed_contender_is_excluded_and_others_continue(tmp_path, how, fails_at, reason):
    entrants = [fake("a", tmp_path / "log", fails_at, how), fake("b", tmp_path / "log")]
    scores, reasons = run_rounds(entrants, JOB, 2, 3, False, Silent())
    assert [score.entrant.name for score in scores] == ["b"]
    assert reasons == {"a": reason}
    assert log_of(tmp_path / "log").count("b 5") == 2


def test_unavailable_contenders_are_reported(tmp_path):
    absent = ContenderSpec("a", "cuda", None, "no card")
    refused = fake("b", tmp_path / "log", -1, "refuses")
    scores, reasons = run_rounds([refused, absent], JOB, 1, 3, False, Silent())
    assert scores == []
    assert list(reasons.items()) == [("b", "no such device"), ("a", "no card")]
