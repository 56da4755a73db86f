"""Retention rules: deleted and kept pictures."""

from __future__ import annotations

import os
import threading
import time

import pytest
from service_database import ENGINE
from sqlalchemy import insert, select, update

from pipeline.service import arrivals, job_queue, results, retention
from pipeline.service import tables as t
from pipeline.service.application import Service
from pipeline.service.arrivals import Arrival
from pipeline.service.blobs import Blobs
from pipeline.service.database import now_ms
from pipeline.service.results import NewResult
from pipeline.service.retention import Retention, due
from pipeline.service.settings import ServiceConfig
from pipeline.service.view_cache import ViewCache

DAY_MS = 86_400_000


@pytest.fixture
def service(database, tmp_path):
    folder = tmp_path / "data"
    database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
    return Service(folder, ServiceConfig(), database, Blobs(folder, 0), ViewCache(folder))


def picture(service, content, days, answer="positive", status="ok"):
    """Add a picture received some days ago, judged if an answer is given."""
    arrival = Arrival(service.blobs.store(content), "a.png", "http", "s")
    number, _ = service.receive(arrival)
    if answer is not None:
        (claim,) = service.database.write(lambda c: job_queue.claim(c, 1, "p", 1))
        result = NewResult(-1, status, answer, None, None, {}, {"answer": answer})
        service.database.write(lambda c: results.finish(c, claim, [result], None))
    own = t.arrival.c.id == number
    received = now_ms() - int(days * DAY_MS)
    service.database.write(
        lambda c: c.execute(update(t.arrival).where(own).values(received_ms=received))
    )
    return number


def rule(service, days, state=None):
    values = {"days": days, "state": state, "created_ms": 0}
    service.database.write(lambda c: c.execute(insert(t.rule).values(**values)))


def run(service):
    """Run the rules once."""
    worker = Retention.__new__(Retention)
    worker._service, worker._stopping = service, threading.Event()
    return worker.run()


def states(service):
    with service.database.read() as connection:
        return list(connection.scalars(select(t.arrival.c.state).order_by(t.arrival.c.id)))


def count_due(service):
    with service.database.read() as connection:
        return due(connection)


def test_without_rules_nothing_is_deleted(service):
    picture(service, b"a", 10_000)
    assert (count_due(service), run(service)) == (0, 0)
    assert states(service) == ["answered"]


def test_rules_delete_old_pictures_of_their_state(service):
    picture(service, b"a", 31)
    picture(service, b"b", 29)
    picture(service, b"c", 8, "failed", "failed")
    picture(service, b"d", 6, "failed", "failed")
    rule(service, 30)
    rule(service, 7, "failed")
    files = len(list(service.blobs.all()))
    assert count_due(service) == 2
    assert len(list(service.blobs.all())) == files  # it was only counted
    assert run(service) == 2
    assert states(service) == ["deleted", "answered", "deleted", "failed"]
    assert len(list(service.blobs.all())) == 2
    assert (count_due(service), run(service)) == (0, 0)
    with service.database.read() as connection:
        actors = connection.scalars(select(t.audit.c.actor).where(t.audit.c.action == "delete"))
        assert list(actors) == ["retention"] * 2


def test_waiting_and_held_pictures_are_kept(service):
    waiting = picture(service, b"waiting", 100, None)
    held = picture(service, b"waiting2", 100, None)
    service.database.write(lambda c: c.execute(update(t.job).values(state="done")))
    service.database.write(
        lambda c: c.execute(
            update(t.arrival).where(t.arrival.c.id == held).values(state="answered")
        )
    )
    service.database.write(
        lambda c: c.execute(
            update(t.blob).values(held=True).where(
                t.blob.c.sha256.in_(select(t.arrival.c.sha256).where(t.arrival.c.id == held))
            )
        )
    )  # fmt: skip
    rule(service, 1)
    assert waiting != held
    assert (count_due(service), run(service)) == (0, 0)
    assert states(service) == ["waiting", "answered"]
    service.database.write(lambda c: c.execute(update(t.blob).values(held=False)))
    assert run(service) == 1
    assert states(service) == ["waiting", "deleted"]


def test_more_pictures_than_a_batch_are_deleted(service, monkeypatch):
    monkeypatch.setattr(retention, "_BATCH", 3)
    for n in range(8):
        picture(service, str(n).encode(), 2)
    rule(service, 1)
    assert run(service) == 8
    assert list(service.blobs.all()) == []


def test_interrupted_deletion_is_completed(service):
    number = picture(service, b"a", 0)
    (sha256,) = service.database.write(lambda c: arrivals.remove(c, number, "admin"))
    assert service.blobs.path(sha256).exists()  # the process ended here
    run(service)
    assert not service.blobs.path(sha256).exists()


def test_unfinished_files_of_a_killed_process_are_deleted_after_a_day(service, tmp_path):
    kept = picture(service, b"kept", 0)
    old, new = service.blobs.store(b"old"), service.blobs.store(b"new")
    unfinished = tmp_path / "data/tmp/unfinished"
    unfinished.write_bytes(b"x")
    two_days_ago = time.time() - 2 * 86_400
    for path in (service.blobs.path(old.sha256), unfinished):
        os.utime(path, (two_days_ago, two_days_ago))
    for sha256 in list(service.blobs.all()):
        if sha256 not in (old.sha256, new.sha256):
            os.utime(service.blobs.path(sha256), (two_days_ago, two_days_ago))
    run(service)
    remaining = set(service.blobs.all())
    assert old.sha256 not in remaining
    assert new.sha256 in remaining
    assert len(remaining) == 2
    assert not unfinished.exists()
    assert states(service) == ["answered"]
    assert kept == 1


def test_rules_run_at_the_start_and_stop_with_the_service(service):
    picture(service, b"a", 2)
    rule(service, 1)
    worker = Retention(service)
    deadline = time.monotonic() + 30
    while states(service) != ["deleted"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker.stop()
    assert not worker._thread.is_alive()
