"""Pictures, jobs and results on both databases: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import errno
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from service_database import ENGINE
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import OperationalError

from pipeline.errors import OutputError
from pipeline.service import audit_log, store
from pipeline.service import tables as t
from pipeline.service.blobs import Blobs, Content, DiskFullError
from pipeline.service.database import now_ms
from pipeline.service.store import Arrival, HeldError, KeyConflictError, NewResult

RESULT = NewResult(-1, "ok", "positive", "hand", 0.9, {"status": "ok"}, {"answer": "positive"})


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "data", 0)


@pytest.fixture
def engine(database):
    """Number of the active engine."""
    database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
    return 1


class Store:
    """Short forms of the operations on one database."""

    def __init__(self, database, blobs, engine):
        self.database, self.blobs, self.engine = database, blobs, engine

    def receive(self, content=b"a", *, key=None, source="http", sender="s", name="a.png"):
        return self.register(self.blobs.store(content), key, source, sender, name)

    def register(self, content, key=None, source="http", sender="s", name="a.png"):
        arrival = Arrival(content, name, source, sender, key)
        return self.database.write(
            lambda c: store.receive(c, arrival, lambda s: self.blobs.path(s).exists())
        )

    def claim(self, owner="p", count=10):
        return self.database.write(lambda c: store.claim(c, self.engine, owner, count))

    def recover(self, blame=store.CRASHED):
        return self.database.write(lambda c: store.recover(c, blame))

    def finish(self, claim, result=RESULT, identity=None):
        return self.database.write(lambda c: store.finish(c, claim, [result], identity))

    def remove(self, number, actor="admin"):
        digests = self.database.write(lambda c: store.remove(c, number, actor))
        for sha256 in digests:
            self.unlink(sha256)
        return digests

    def unlink(self, sha256):
        self.database.write(lambda c: store.unlink(c, sha256, self.blobs.remove))

    def rows(self, table, *where):
        with self.database.read() as connection:
            query = select(table).where(*where).order_by(*table.primary_key)
            return connection.execute(query).all()

    def count(self, table):
        with self.database.read() as connection:
            return connection.scalar(select(func.count()).select_from(table))


@pytest.fixture
def opened(database, blobs, engine):
    return Store(database, blobs, engine)


def test_a_received_picture_has_a_job_an_event_and_an_audit_entry(opened):
    number, is_new = opened.receive(b"abc")
    assert is_new
    (arrival,) = opened.rows(t.arrival)
    assert (arrival.id, arrival.state, arrival.source) == (number, "waiting", "http")
    (job,) = opened.rows(t.job)
    assert (job.state, job.attempt, job.priority) == ("waiting", 0, store.PRIORITY["http"])
    assert [(e.kind, e.subject) for e in opened.rows(t.event)] == [("received", number)]
    assert [entry.action for entry in opened.rows(t.audit)] == ["receive"]
    assert opened.blobs.read(arrival.sha256) == b"abc"


def test_the_same_content_is_judged_once(opened):
    first, second = opened.receive(b"a")[0], opened.receive(b"a", source="dicom")[0]
    assert first != second
    (claim,) = opened.claim()
    opened.finish(claim)
    assert {row.state for row in opened.rows(t.arrival)} == {"answered"}
    third, _ = opened.receive(b"a")
    assert opened.rows(t.arrival, t.arrival.c.id == third)[0].answer == "positive"
    assert (opened.count(t.blob), opened.count(t.job), opened.count(t.result)) == (1, 1, 1)


def test_a_repeated_key_has_no_effect(opened):
    first = opened.receive(b"a", key="k")
    assert opened.receive(b"a", key="k") == (first[0], False)
    with pytest.raises(KeyConflictError):
        opened.receive(b"b", key="k")
    assert opened.receive(b"b", key="k", sender="other")[1]
    assert opened.count(t.arrival) == 2


def test_simultaneous_receipts_of_one_picture(opened):
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
    early = Store(database, blobs, 1)
    for name, source in (("a", "watch"), ("b", "http"), ("b", "dicom"), ("gone", "http")):
        early.receive(name.encode(), source=source, name=name)
    early.remove(4)
    assert early.count(t.job) == 0
    database.write(lambda c: c.execute(insert(t.engine).values(**ENGINE)))
    database.write(lambda c: store.queue_all(c, 1))
    jobs = {(job.name, job.priority) for job in early.rows(t.job)}
    assert jobs == {("a", store.PRIORITY["watch"]), ("b", store.PRIORITY["http"])}
    assert {claim.name for claim in early.claim()} == {"a", "b"}


def test_claims_are_by_priority_and_always_include_the_oldest(opened):
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


def test_a_second_receipt_raises_the_priority(opened):
    for n in range(2):
        opened.receive(f"first {n}".encode(), source="watch", name=f"first {n}")
    opened.receive(b"later", source="watch", name="later")
    opened.receive(b"later", source="http", name="later")
    assert [claim.name for claim in opened.claim(count=2)] == ["first 0", "later"]


def test_a_job_is_claimed_by_one_process_only(opened):
    for n in range(40):
        opened.receive(str(n).encode())
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda n: opened.claim(f"p{n}", 5), range(16)))
    jobs = [claim.job for part in parts for claim in part]
    assert len(jobs) == len(set(jobs))
    rest = [claim.job for _ in range(40) for claim in opened.claim("last", 5)]
    assert sorted(jobs + rest) == list(range(1, 41))


def test_a_result_of_an_earlier_attempt_is_discarded(opened):
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


def test_a_stale_process_cannot_return_the_job_of_another(opened):
    opened.receive()
    (stale,) = opened.claim("first")
    opened.recover()
    opened.claim("second")
    opened.database.write(lambda c: store.give_back(c, stale, "disk"))
    (job,) = opened.rows(t.job)
    assert (job.state, job.owner, job.attempt) == ("taken", "second", 2)


def test_recovery_frees_what_was_being_read(opened):
    for n in range(3):
        opened.receive(str(n).encode())
    opened.finish(opened.claim(count=1)[0])
    opened.claim()
    assert opened.recover() == 2
    assert [row.state for row in opened.rows(t.arrival)] == ["answered", "waiting", "waiting"]
    assert opened.recover() == 0


def test_a_job_of_a_lost_process_is_free_after_its_lease_on_postgresql_only(opened):
    opened.receive()
    opened.claim("lost")
    assert opened.claim("other") == []
    opened.database.write(lambda c: c.execute(update(t.job).values(lease_ms=now_ms() - 1)))
    claims = opened.claim("other")
    if opened.database.is_sqlite:
        assert claims == []
        return
    (claim,) = claims
    assert (claim.owner, claim.attempt, claim.blame) == ("other", 2, store.CRASHED)


def test_a_renewed_lease_keeps_the_job(opened):
    opened.receive()
    opened.claim("slow")
    opened.database.write(lambda c: c.execute(update(t.job).values(lease_ms=now_ms() - 1)))
    opened.database.write(lambda c: store.renew(c, "slow"))
    assert opened.claim("other") == []
    (job,) = opened.rows(t.job)
    assert job.lease_ms > now_ms() + store.LEASE_MS // 2


def test_a_job_that_ends_its_process_does_not_make_others_fail(opened):
    """Job 1 ends the process whenever it is read; the others must be judged all the same."""
    for n in range(6):
        opened.receive(str(n).encode())
    finished, gave_up = [], False
    for _ in range(40):
        claims = opened.claim(count=4)
        if not claims:
            break
        if claims[0].job == 1 and claims[0].blame >= store.MOST_BLAME:
            gave_up = True
        elif any(claim.job == 1 for claim in claims):
            opened.recover()
            continue
        assert all(claim.blame < store.MOST_BLAME for claim in claims if claim.job != 1)
        for claim in claims:
            finished += [claim.job] if opened.finish(claim) else []
    assert gave_up
    assert sorted(finished) == [1, 2, 3, 4, 5, 6]
    assert opened.count(t.result) == 6


def test_a_job_with_blame_is_claimed_alone(opened):
    for n in range(3):
        opened.receive(str(n).encode())
    assert len(opened.claim()) == 3
    opened.recover()
    assert [claim.job for claim in opened.claim()] == [1]
    opened.receive(b"new", source="http")
    assert [claim.job for claim in opened.claim()] == [2]


@pytest.mark.parametrize(("blame", "times"), [(store.CRASHED, 3), (store.KILLED, 12)])
def test_a_job_is_to_blame_after_three_crashes_or_twelve_kills(opened, blame, times):
    opened.receive()
    for n in range(times):
        (claim,) = opened.claim()
        assert (claim.attempt, claim.blame) == (n + 1, n * blame)
        assert claim.blame < store.MOST_BLAME
        opened.recover(blame)
    assert opened.claim()[0].blame >= store.MOST_BLAME


def test_a_fault_of_its_own_content_blames_a_job(opened):
    opened.receive()
    (claim,) = opened.claim()
    opened.database.write(lambda c: store.give_back(c, claim, "unreadable", store.CRASHED))
    assert opened.claim()[0].blame == store.CRASHED


def test_a_job_that_is_returned_without_blame_can_be_repeated_for_ever(opened):
    opened.receive()
    for n in range(2 * store.MOST_BLAME):
        (claim,) = opened.claim()
        assert (claim.attempt, claim.blame) == (n + 1, 0)
        opened.database.write(lambda c, one=claim: store.give_back(c, one, "disk"))
    assert opened.rows(t.job)[0].error == "disk"


def test_removal_keeps_content_that_another_picture_has(opened):
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


def test_a_removed_picture_can_be_received_again(opened):
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


def test_a_picture_that_is_removed_while_it_is_read_has_no_result(opened):
    number, _ = opened.receive()
    (claim,) = opened.claim()
    opened.remove(number)
    assert opened.finish(claim) == []
    assert opened.count(t.result) == 0


def test_content_that_arrives_again_during_a_removal_is_kept(opened):
    number, _ = opened.receive()
    (sha256,) = opened.database.write(lambda c: store.remove(c, number, "admin"))
    opened.receive()  # between the transaction of the removal and that of its file
    opened.unlink(sha256)
    assert opened.blobs.read(sha256) == b"a"
    assert len(opened.claim()) == 1


def test_content_that_was_unlinked_before_its_registration_is_refused(opened):
    number, _ = opened.receive()
    content = opened.blobs.store(b"a")
    opened.remove(number)
    with pytest.raises(store.ContentGoneError):
        opened.register(content)
    assert opened.receive()[1]


def test_a_legal_hold_refuses_removal(opened):
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


def test_an_operation_that_fails_does_not_affect_those_of_its_group(opened):
    content = opened.blobs.store(b"a")

    def fail(connection):
        connection.execute(insert(t.setting).values(key="lost", value=1))
        raise ValueError("a fault")

    def keep(number):
        return lambda c: c.execute(insert(t.setting).values(key=f"kept {number}", value=number))

    started = opened.database.submit(lambda c: os.times())  # the next ones wait for it together
    futures = [opened.database.submit(fail if n % 3 == 1 else keep(n)) for n in range(30)]
    receipt = opened.database.submit(
        lambda c: store.receive(c, Arrival(content, "a", "http", "s"), lambda _: True)
    )
    started.result()
    assert receipt.result()[1]
    for n, future in enumerate(futures):
        if n % 3 == 1:
            with pytest.raises(ValueError, match="a fault"):
                future.result()
        else:
            future.result()
    kept = {f"kept {n}" for n in range(30) if n % 3 != 1}
    assert {row.key for row in opened.rows(t.setting)} == kept


def test_a_closed_database_refuses_writes(opened):
    opened.database.close()
    with pytest.raises(RuntimeError, match="closed"):
        opened.database.submit(lambda c: None)


# Faults of the disk. Each is a refusal; what was acknowledged before stays.


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("place", ["fsync", "rename"])
def test_a_fault_of_the_disk_refuses_the_picture(opened, monkeypatch, code, place):
    kept, _ = opened.receive(b"kept")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if place == "fsync" else (Path, "replace")), fail)
        with pytest.raises(OSError if code == errno.EIO else DiskFullError):
            opened.receive(b"refused")
    _nothing_but(opened, kept, b"kept")
    assert opened.receive(b"refused")[1]


def test_a_file_that_cannot_grow_is_refused(opened):
    kept, _ = opened.receive(b"kept")
    receiving = opened.blobs.receive()
    with receiving:
        receiving.write(b"x" * 1000)
        with _largest_file(2000), pytest.raises(OSError, match="too large"):
            receiving.write(b"x" * 3000)
    _nothing_but(opened, kept, b"kept")


def test_a_disk_below_the_reserve_refuses_before_the_body_is_read(tmp_path):
    blobs = Blobs(tmp_path, 2**62)
    assert not blobs.has_room()
    with pytest.raises(DiskFullError) as caught:
        blobs.store(b"a")
    assert isinstance(caught.value, OutputError)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_full_disk_of_the_database_refuses_and_loses_nothing(opened):
    kept, _ = opened.receive(b"kept")
    pages = opened.database.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
    # The limit is of a connection, and the pool gives the writer the same one again.
    _on_all_connections(opened.database, f"PRAGMA max_page_count={pages}")
    content = opened.blobs.store(b"refused")

    def fill():
        for n in range(100):
            opened.register(content, f"{n}" * 50, name="n" * 1024)

    with pytest.raises(OperationalError, match="full"):
        fill()
    received = opened.count(t.arrival)
    _on_all_connections(opened.database, "PRAGMA max_page_count=1073741823")
    assert opened.receive(b"later")[1]
    assert opened.count(t.arrival) == received + 1
    assert opened.rows(t.arrival)[0].id == kept
    assert opened.count(t.audit) == received + 1
    with opened.database.read() as connection:
        assert audit_log.first_fault(connection) is None
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_an_error_of_the_disk_below_the_database_refuses_and_loses_nothing(opened, tmp_path):
    kept, _ = opened.receive(b"kept")
    content = opened.blobs.store(b"refused")
    size = (tmp_path / "fxpipe.sqlite-wal").stat().st_size
    with _largest_file(size), pytest.raises(OperationalError):
        opened.register(content, name="n" * 1024)
    assert [row.id for row in opened.rows(t.arrival)] == [kept]
    assert opened.register(content)[1]
    assert opened.count(t.arrival) == opened.count(t.job) == 2


def test_unfinished_files_are_swept_at_the_next_start(opened, tmp_path):
    receiving = opened.blobs.receive()
    receiving.write(b"half")
    assert Blobs(tmp_path / "data").sweep() == 1
    with receiving, pytest.raises(FileNotFoundError):
        receiving.keep()
    assert opened.count(t.arrival) == 0


def test_damaged_and_missing_files_are_found(opened):
    content = [opened.blobs.store(bytes([n])) for n in range(4)]
    digests = [one.sha256 for one in content]
    opened.blobs.path(digests[1]).write_bytes(b"changed")
    opened.blobs.remove(digests[2])
    assert list(opened.blobs.damaged(digests)) == digests[1:3]
    assert set(opened.blobs.all()) == {digests[0], digests[1], digests[3]}


def test_a_digest_is_checked_before_it_becomes_a_path(opened):
    for text in ("", "../" * 20 + "abcd", "A" * 64, "a" * 63):
        with pytest.raises(ValueError, match="SHA-256"):
            opened.blobs.path(text)
    assert opened.blobs.store(b"") == Content(opened.blobs.store(b"").sha256, 0)


def _nothing_but(opened, number, content):
    """The first picture is as it was, and nothing is there of a second one."""
    (arrival,) = opened.rows(t.arrival)
    assert arrival.id == number
    assert opened.blobs.read(arrival.sha256) == content
    folder = opened.blobs.path(arrival.sha256).parents[1]
    assert list((folder.parent / "tmp").iterdir()) == []
    assert [claim.sha256 for claim in opened.claim()] == [arrival.sha256]
    opened.recover()


def _on_all_connections(database, line):
    """Run a pragma on the connection of the writer, which the pool keeps."""
    database.write(lambda c: c.exec_driver_sql(line))


@contextmanager
def _largest_file(size_bytes):
    """Let files of this process grow up to a size only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
