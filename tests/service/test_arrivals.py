"""Receiving and removing pictures, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from service_database import ENGINE
from sqlalchemy import insert, update
from stored_pictures import StoredPictures

from pipeline.service import arrivals, audit_log, job_queue
from pipeline.service import tables as t
from pipeline.service.arrivals import HeldError, KeyConflictError
from pipeline.service.contents import ContentGoneError


def test_received_picture_has_job_event_and_audit_entry(opened):
    number, is_new = opened.receive(b"abc")
    assert is_new
    (arrival,) = opened.rows(t.arrival)
    assert (arrival.id, arrival.state, arrival.source) == (number, "waiting", "http")
    (job,) = opened.rows(t.job)
    assert (job.state, job.attempt, job.priority) == ("waiting", 0, job_queue.PRIORITY["http"])
    assert [(e.kind, e.subject) for e in opened.rows(t.event)] == [("received", number)]
    assert [entry.action for entry in opened.rows(t.audit)] == ["receive"]
    assert opened.blobs.read(arrival.sha256) == b"abc"


def test_identical_content_is_judged_once(opened):
    first, second = opened.receive(b"a")[0], opened.receive(b"a", source="dicom")[0]
    assert first != second
    (claim,) = opened.claim()
    opened.finish(claim)
    assert {row.state for row in opened.rows(t.arrival)} == {"answered"}
    third, _ = opened.receive(b"a")
    assert opened.rows(t.arrival, t.arrival.c.id == third)[0].answer == "positive"
    assert (opened.count(t.blob), opened.count(t.job), opened.count(t.result)) == (1, 1, 1)


def test_repeated_key_has_no_effect(opened):
    first = opened.receive(b"a", key="k")
    assert opened.receive(b"a", key="k") == (first[0], False)
    with pytest.raises(KeyConflictError):
        opened.receive(b"b", key="k")
    assert opened.receive(b"b", key="k", sender="other")[1]
    assert opened.count(t.arrival) == 2


def test_concurrent_receipts_of_one_picture(opened):
    content = opened.blobs.store(b"same")
    with ThreadPoolExecutor(8) as pool:
        repeated = list(pool.map(lambda _: opened.register(content, "k"), range(24)))
        others = list(pool.map(lambda n: opened.register(content, f"k{n}"), range(24)))
    assert len({number for number, _ in repeated}) == 1
    assert sum(is_new for _, is_new in repeated) == 1
    assert len({number for number, _ in others}) == 24
    assert (opened.count(t.blob), opened.count(t.job), opened.count(t.arrival)) == (1, 1, 25)
    with opened.database.read() as connection:
        assert audit_log.first_fault(connection) is None


def test_pictures_that_arrived_before_the_first_engine_are_queued(database, blobs):
    early = StoredPictures(database, blobs, 1)
    for name, source in (("a", "watch"), ("b", "http"), ("b", "dicom"), ("gone", "http")):
        early.receive(name.encode(), source=source, name=name)
    early.remove(4)
    assert early.count(t.job) == 0
    database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
    database.write(lambda c: job_queue.queue_all(c, 1))
    jobs = {(job.name, job.priority) for job in early.rows(t.job)}
    assert jobs == {("a", job_queue.PRIORITY["watch"]), ("b", job_queue.PRIORITY["http"])}
    assert {claim.name for claim in early.claim()} == {"a", "b"}


def test_removal_keeps_content_used_by_another_picture(opened):
    first, second = opened.receive(name="Doe.png")[0], opened.receive(name="Roe.png")[0]
    opened.finish(opened.claim()[0])
    assert opened.remove(first) == []
    (sha256,) = opened.remove(second)
    assert not opened.blobs.path(sha256).exists()
    assert [(row.state, row.name) for row in opened.rows(t.arrival)] == [("deleted", "")] * 2
    assert opened.count(t.detail) == 0
    assert opened.rows(t.job)[0].name == ""
    assert opened.rows(t.blob)[0].deleted_ms is not None
    assert opened.remove(second) == []


def test_removed_picture_can_be_received_again(opened):
    first, _ = opened.receive(key="k")
    opened.finish(opened.claim()[0])
    opened.remove(first)
    second, is_new = opened.receive(key="k")
    assert is_new
    assert second != first
    (claim,) = opened.claim()
    assert claim.name == "a.png"
    opened.finish(claim)
    rows = opened.rows(t.arrival)
    assert [row.state for row in rows] == ["deleted", "answered"]
    assert opened.rows(t.blob)[0].deleted_ms is None
    assert opened.blobs.read(claim.sha256) == b"a"


def test_picture_removed_during_judging_has_no_result(opened):
    number, _ = opened.receive()
    (claim,) = opened.claim()
    opened.remove(number)
    assert opened.finish(claim) == []
    assert opened.count(t.result) == 0


def test_content_received_again_during_removal_is_kept(opened):
    number, _ = opened.receive()
    (sha256,) = opened.database.write(lambda c: arrivals.remove(c, number, "admin"))
    opened.receive()  # between the transactions that remove the picture and its file
    opened.unlink(sha256)
    assert opened.blobs.read(sha256) == b"a"
    assert len(opened.claim()) == 1


def test_content_unlinked_before_registration_is_refused(opened):
    number, _ = opened.receive()
    content = opened.blobs.store(b"a")
    opened.remove(number)
    with pytest.raises(ContentGoneError):
        opened.register(content)
    assert opened.receive()[1]


def test_legal_hold_prevents_removal(opened):
    number, _ = opened.receive()
    opened.database.write(lambda c: c.execute(update(t.blob).values(held=True)))
    with pytest.raises(HeldError):
        opened.remove(number)
    assert opened.blobs.read(opened.rows(t.blob)[0].sha256) == b"a"
    assert opened.rows(t.arrival)[0].state == "waiting"
    opened.database.write(lambda c: c.execute(update(t.blob).values(held=False)))
    assert len(opened.remove(number)) == 1


def test_pictures_of_a_study_join_it(opened):
    identity = {"StudyInstanceUID": "1.2.3", "PatientName": "Doe"}
    for content in (b"a", b"b"):
        opened.receive(content)
        opened.finish(opened.claim()[0], identity=identity)
    assert {row.study_id for row in opened.rows(t.arrival)} == {1}
    (study,) = opened.rows(t.study)
    assert study.identity == identity
    assert "1.2.3" not in study.key
