"""Contents of the outbox on both databases: what is queued can be sent."""

from __future__ import annotations

import time
from threading import Event

import pytest
from sqlalchemy import insert, select, update

from pipeline.service import arrivals, outbox, studies
from pipeline.service import tables as t
from pipeline.service.application import Service
from pipeline.service.contents import ContentGoneError
from pipeline.service.database import insert_row
from pipeline.service.outbox import NewObject
from pipeline.service.settings import ServiceConfig
from pipeline.service.view_cache import ViewCache


@pytest.fixture
def study(database):
    """Number of a study, with two peers that results are sent to."""

    def write(connection):
        for title in "AB":
            peer = {"title": title, "host": "h", "receive": False, "send": True, "tls": False}
            connection.execute(insert(t.peer).values(**peer, created_ms=0))
        return insert_row(connection, t.study, key="s", last_seen_ms=1)

    return database.write(write)


@pytest.fixture
def queue(database, blobs, study):
    """Queues an object of the study for a peer."""

    def add(content, peer=1, uid="2.25.1"):
        one = NewObject(uid, "report", "0" * 64, content)
        return database.write(lambda c: outbox.add(c, study, [one], [peer], blobs.exists))

    return add


def queued(database):
    with database.read() as connection:
        return list(connection.scalars(select(t.outbox.c.sha256)))


def test_an_object_whose_content_was_deleted_after_it_was_stored_is_not_queued(
    database, blobs, queue
):
    content = blobs.store(b"report")
    database.write(lambda c: arrivals.unlink(c, content.sha256, blobs.remove))
    with pytest.raises(ContentGoneError):
        queue(content)
    assert queued(database) == []
    assert queue(blobs.store(b"report")) == [1]


def test_content_that_was_released_is_kept_once_it_is_queued_again(database, blobs, queue):
    content = blobs.store(b"report")
    queue(content)
    free = database.write(lambda c: outbox.delete_rows(c, t.outbox.c.peer_id == 1))
    assert free == [content.sha256]
    queue(content, peer=2)  # between the transaction of the release and that of the file
    database.write(lambda c: arrivals.unlink(c, content.sha256, blobs.remove))
    assert blobs.read(content.sha256) == b"report"


def test_content_that_is_queued_during_its_release_is_kept(database, blobs, study, queue):
    content = blobs.store(b"report")
    queue(content)
    database.write(lambda c: c.execute(update(t.outbox).values(state="sent")))
    added, done = Event(), Event()

    def add(connection):
        one = NewObject("2.25.1", "report", "0" * 64, content)
        outbox.add(connection, study, [one], [2], blobs.exists)
        added.set()
        assert done.wait(30)

    adding = database.submit(add)
    assert added.wait(30)
    releasing = database.submit(lambda c: outbox.delete_unused(c, [content.sha256]))
    time.sleep(0.5)  # the release has come as far as it can
    done.set()
    adding.result()
    assert releasing.result() == []


def test_a_peer_that_has_got_many_objects_can_be_deleted(database, study):
    """More than a query may have values with PostgreSQL, which are 65,535."""
    count = 66_000

    def write(connection):
        blobs = [{"sha256": f"{n:064x}", "size": 1, "created_ms": 0} for n in range(count)]
        objects = [
            {
                "object_uid": f"2.25.{n}", "peer_id": 1, "study_id": study, "kind": "report",
                "sha256": f"{n:064x}", "source": "0" * 64, "state": "sent", "next_ms": 0,
                "created_ms": 0,
            }
            for n in range(count)
        ]  # fmt: skip
        connection.execute(insert(t.blob).values(deleted_ms=1), blobs[1:])
        connection.execute(insert(t.blob), blobs[:1])
        connection.execute(insert(t.outbox), objects)

    database.write(write)
    free = database.write(lambda c: outbox.delete_rows(c, t.outbox.c.peer_id == 1))
    assert (len(free), free[0]) == (1, f"{0:064x}")  # the others were deleted before
    assert len(queued(database)) == 0


def test_a_study_whose_contents_were_deleted_meanwhile_remains_due(
    database, blobs, study, tmp_path, monkeypatch
):
    service = Service(
        tmp_path, ServiceConfig(reserve_bytes=0), database, blobs, ViewCache(tmp_path)
    )

    def objects(*_):
        content = blobs.store(b"report")
        if not deleted:
            deleted.append(content)
            database.write(lambda c: arrivals.unlink(c, content.sha256, blobs.remove))
        return [NewObject("2.25.1", "report", "0" * 64, content)]

    deleted: list[object] = []
    monkeypatch.setattr(studies, "_objects", objects)
    assert studies.queue_objects(service, study) == 0
    with database.read() as connection:
        assert studies.stable(connection, 1.0) == [study]
    assert studies.queue_objects(service, study) == 2
    assert len(queued(database)) == 2
