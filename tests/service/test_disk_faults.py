"""Full disks and I/O errors: the picture is refused, and no data is lost."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from pipeline.errors import OutputError
from pipeline.service import arrivals, audit_log
from pipeline.service import tables as t
from pipeline.service.arrivals import Arrival
from pipeline.service.blobs import Blobs, Content, DiskFullError


def test_failed_operation_does_not_affect_its_group(opened):
    content = opened.blobs.store(b"a")

    def fail(connection):
        connection.execute(insert(t.setting).values(key="lost", value=1))
        raise ValueError("a fault")

    def keep(number):
        return lambda c: c.execute(insert(t.setting).values(key=f"kept {number}", value=number))

    started = opened.database.submit(
        lambda c: os.times()
    )  # the following operations form one group
    futures = [opened.database.submit(fail if n % 3 == 1 else keep(n)) for n in range(30)]
    receipt = opened.database.submit(
        lambda c: arrivals.receive(c, Arrival(content, "a", "http", "s"), lambda _: True)
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


def test_closed_database_refuses_writes(opened):
    opened.database.close()
    with pytest.raises(RuntimeError, match="closed"):
        opened.database.submit(lambda c: None)


# Disk faults. Each refuses the picture and keeps the acknowledged ones.


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("place", ["fsync", "rename"])
def test_disk_fault_refuses_the_picture(opened, monkeypatch, code, place):
    kept, _ = opened.receive(b"kept")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if place == "fsync" else (Path, "replace")), fail)
        with pytest.raises(OSError if code == errno.EIO else DiskFullError):
            opened.receive(b"refused")
    _nothing_but(opened, kept, b"kept")
    assert opened.receive(b"refused")[1]


def test_file_above_the_size_limit_is_refused(opened):
    kept, _ = opened.receive(b"kept")
    receiving = opened.blobs.receive()
    with receiving:
        receiving.write(b"x" * 1000)
        with _largest_file(2000), pytest.raises(OSError, match="too large"):
            receiving.write(b"x" * 3000)
    _nothing_but(opened, kept, b"kept")


def test_disk_below_the_reserve_refuses_before_the_body_is_read(tmp_path):
    blobs = Blobs(tmp_path, 2**62)
    assert not blobs.has_room()
    with pytest.raises(DiskFullError) as caught:
        blobs.store(b"a")
    assert isinstance(caught.value, OutputError)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_full_disk_of_the_database_loses_no_data(opened):
    kept, _ = opened.receive(b"kept")
    pages = opened.database.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
    # The limit applies to a connection; the pool returns the same connection to the writer.
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
def test_io_error_of_the_database_loses_no_data(opened, tmp_path):
    kept, _ = opened.receive(b"kept")
    content = opened.blobs.store(b"refused")
    size = (tmp_path / "fxpipe.sqlite-wal").stat().st_size
    with _largest_file(size), pytest.raises(OperationalError):
        opened.register(content, name="n" * 1024)
    assert [row.id for row in opened.rows(t.arrival)] == [kept]
    assert opened.register(content)[1]
    assert opened.count(t.arrival) == opened.count(t.job) == 2


def test_unfinished_files_are_removed_at_the_next_start(opened, tmp_path):
    receiving = opened.blobs.receive()
    receiving.write(b"half")
    assert Blobs(tmp_path / "data").sweep() == 1
    with receiving, pytest.raises(FileNotFoundError):
        receiving.keep()
    assert opened.count(t.arrival) == 0


def test_damaged_and_missing_files_are_reported(opened):
    content = [opened.blobs.store(bytes([n])) for n in range(4)]
    digests = [one.sha256 for one in content]
    opened.blobs.path(digests[1]).write_bytes(b"changed")
    opened.blobs.remove(digests[2])
    assert list(opened.blobs.damaged(digests)) == digests[1:3]
    assert set(opened.blobs.all()) == {digests[0], digests[1], digests[3]}


def test_invalid_digest_is_refused_as_path(opened):
    for text in ("", "../" * 20 + "abcd", "A" * 64, "a" * 63):
        with pytest.raises(ValueError, match="SHA-256"):
            opened.blobs.path(text)
    assert opened.blobs.store(b"") == Content(opened.blobs.store(b"").sha256, 0)


def _nothing_but(opened, number, content):
    """The first picture is unchanged, and the second one has left no data."""
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
    """Limit the file size of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
