"""The job queue on both databases: each job is finished exactly once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from service_database import ENGINE
from sqlalchemy import insert, update
from stored_pictures import RESULT

from pipeline.service import job_queue, jobs
from pipeline.service import tables as t
from pipeline.service.database import now_ms


def test_claims_follow_priority_and_include_the_oldest(opened):
    for n in range(3):
        opened.receive(f"watch {n}".encode(), source="watch")
    for n in range(3):
        opened.receive(f"http {n}".encode(), source="http", name=f"http {n}")
    opened.receive(b"dicom", source="dicom", name="dicom")
    first = opened.claim(count=3)
    assert [claim.name for claim in first] == ["a.png", "http 0", "http 1"]
    assert first[0].job == 1
    second = opened.claim(count=3)
    assert [claim.job for claim in second][:1] == [2]
    assert [claim.name for claim in second][1:] == ["http 2", "dicom"]
    states = [row.state for row in opened.rows(t.arrival)]
    assert states.count("reading") == 6


def test_second_receipt_raises_the_priority(opened):
    for n in range(2):
        opened.receive(f"first {n}".encode(), source="watch", name=f"first {n}")
    opened.receive(b"later", source="watch", name="later")
    opened.receive(b"later", source="http", name="later")
    assert [claim.name for claim in opened.claim(count=2)] == ["first 0", "later"]


def test_job_is_claimed_by_one_process(opened):
    for n in range(40):
        opened.receive(str(n).encode())
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda n: opened.claim(f"p{n}", 5), range(16)))
    jobs = [claim.job for part in parts for claim in part]
    assert len(jobs) == len(set(jobs))
    rest = [claim.job for _ in range(40) for claim in opened.claim("last", 5)]
    assert sorted(jobs + rest) == list(range(1, 41))


def test_result_of_an_earlier_attempt_is_discarded(opened):
    opened.receive()
    (stale,) = opened.claim("first")
    opened.recover()
    (claim,) = opened.claim("second")
    assert (stale.attempt, claim.attempt) == (1, 2)
    assert opened.finish(stale) == []
    assert opened.rows(t.arrival)[0].state == "reading"
    assert len(opened.finish(claim)) == 1
    assert opened.finish(claim) == []
    assert (opened.count(t.result), opened.count(t.detail)) == (1, 1)


def test_stale_process_cannot_return_the_job_of_another(opened):
    opened.receive()
    (stale,) = opened.claim("first")
    opened.recover()
    opened.claim("second")
    opened.database.write(lambda c: job_queue.give_back(c, stale, "disk"))
    (job,) = opened.rows(t.job)
    assert (job.state, job.owner, job.attempt) == ("taken", "second", 2)


def test_recovery_returns_taken_jobs(opened):
    for n in range(3):
        opened.receive(str(n).encode())
    opened.finish(opened.claim(count=1)[0])
    opened.claim()
    assert opened.recover() == 2
    assert [row.state for row in opened.rows(t.arrival)] == ["answered", "waiting", "waiting"]
    assert opened.recover() == 0


def test_job_with_expired_lease_is_claimed_on_postgresql_only(opened):
    opened.receive()
    opened.claim("lost")
    assert opened.claim("other") == []
    opened.database.write(lambda c: c.execute(update(t.job).values(lease_ms=now_ms() - 1)))
    claims = opened.claim("other")
    if opened.database.is_sqlite:
        assert claims == []
        return
    (claim,) = claims
    assert (claim.owner, claim.attempt, claim.blame) == ("other", 2, job_queue.KILLED)


def test_restarted_process_recovers_only_its_own_jobs(opened):
    for n in range(4):
        opened.receive(str(n).encode())
    opened.claim("restarted", 2)
    opened.claim("other", 2)
    assert opened.recover(job_queue.CRASHED, "restarted") == 2
    assert [(job.state, job.owner, job.blame) for job in opened.rows(t.job)] == [
        ("waiting", None, job_queue.CRASHED), ("waiting", None, job_queue.CRASHED),
        ("taken", "other", 0), ("taken", "other", 0),
    ]  # fmt: skip


def test_recovered_job_of_a_candidate_keeps_the_state_of_the_picture(opened):
    candidate = {**ENGINE, "digest": "1" * 64, "state": "candidate"}
    opened.database.write(lambda c: c.execute(insert(t.engine).values(**candidate)))
    opened.receive()
    opened.claim("other")
    assert opened.database.write(lambda c: job_queue.claim(c, 2, "restarted", 1))
    assert opened.recover(job_queue.KILLED, "restarted") == 1
    assert [row.state for row in opened.rows(t.arrival)] == ["reading"]


def test_renewed_lease_keeps_the_job(opened):
    opened.receive()
    opened.claim("slow")
    opened.database.write(lambda c: c.execute(update(t.job).values(lease_ms=now_ms() - 1)))
    opened.database.write(lambda c: job_queue.renew(c, "slow"))
    assert opened.claim("other") == []
    (job,) = opened.rows(t.job)
    assert job.lease_ms > now_ms() + job_queue.LEASE_MS // 2


def test_job_that_kills_its_process_does_not_fail_others(opened):
    """Job 1 kills its process each time; the other jobs must be judged nevertheless."""
    for n in range(6):
        opened.receive(str(n).encode())
    finished, gave_up = [], False
    for _ in range(40):
        claims = opened.claim(count=4)
        if not claims:
            break
        if claims[0].job == 1 and claims[0].blame >= job_queue.MOST_BLAME:
            gave_up = True
        elif any(claim.job == 1 for claim in claims):
            opened.recover()
            continue
        assert all(claim.blame < job_queue.MOST_BLAME for claim in claims if claim.job != 1)
        for claim in claims:
            finished += [claim.job] if opened.finish(claim) else []
    assert gave_up
    assert sorted(finished) == [1, 2, 3, 4, 5, 6]
    assert opened.count(t.result) == 6


def test_job_with_blame_is_claimed_alone(opened):
    for n in range(3):
        opened.receive(str(n).encode())
    assert len(opened.claim()) == 3
    opened.recover()
    assert [claim.job for claim in opened.claim()] == [1]
    opened.receive(b"new", source="http")
    assert [claim.job for claim in opened.claim()] == [2]


@pytest.mark.parametrize(("blame", "times"), [(job_queue.CRASHED, 3), (job_queue.KILLED, 12)])
def test_job_fails_after_three_crashes_or_twelve_kills(opened, blame, times):
    opened.receive()
    for n in range(times):
        (claim,) = opened.claim()
        assert (claim.attempt, claim.blame) == (n + 1, n * blame)
        assert claim.blame < job_queue.MOST_BLAME
        opened.recover(blame)
    assert opened.claim()[0].blame >= job_queue.MOST_BLAME


def test_fault_of_the_content_adds_blame(opened):
    opened.receive()
    (claim,) = opened.claim()
    opened.database.write(lambda c: job_queue.give_back(c, claim, "unreadable", job_queue.CRASHED))
    assert opened.claim()[0].blame == job_queue.CRASHED


def test_retried_job_has_no_blame(opened):
    opened.receive()
    for _ in range(job_queue.MOST_BLAME):
        opened.claim()
        opened.recover(job_queue.KILLED)
    (claim,) = opened.claim()
    opened.finish(claim, replace(RESULT, status="failed", answer="failed"))
    opened.database.write(lambda c: jobs.retry(c, claim.job, "admin"))
    assert opened.claim()[0].blame == 0


def test_job_returned_without_blame_is_repeated_without_limit(opened):
    opened.receive()
    for n in range(2 * job_queue.MOST_BLAME):
        (claim,) = opened.claim()
        assert (claim.attempt, claim.blame) == (n + 1, 0)
        opened.database.write(lambda c, one=claim: job_queue.give_back(c, one, "disk"))
    assert opened.rows(t.job)[0].error == "disk"
