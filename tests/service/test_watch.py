"""Watched folders: each content is received once, when the file no longer changes."""

from __future__ import annotations

import os
import shutil
import threading
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select

from pipeline.errors import UsageError
from pipeline.io.own_output import TABLE_BEGINS
from pipeline.service import schema, watch
from pipeline.service import tables as t
from pipeline.service.application import Service
from pipeline.service.blobs import Blobs
from pipeline.service.database import Database, sqlite_url
from pipeline.service.settings import ServiceConfig
from pipeline.service.view_cache import ViewCache
from pipeline.service.watch import Watcher

WAIT_S = 30.0


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch):
    """Shorten the interval between checks."""
    monkeypatch.setattr(watch, "LOOK_S", 0.3)
    monkeypatch.setattr(watch, "_BUSY_S", 0.1)


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def service(tmp_path):
    """The receiving parts of a service, without engines."""
    with opened(tmp_path / "data") as service:
        yield service


@contextmanager
def opened(folder, **config):
    folder.mkdir(exist_ok=True)
    database = Database(sqlite_url(folder))
    schema.upgrade(database)
    settings = ServiceConfig(reserve_bytes=0, **config)
    try:
        yield Service(folder, settings, database, Blobs(folder, 0), ViewCache(folder))
    finally:
        database.close()


@contextmanager
def watching(service, folder):
    watcher = Watcher(service, folder)
    try:
        yield watcher
    finally:
        watcher.stop()


def received(service):
    """Names and contents of the pictures, in order of arrival."""
    with service.database.read() as connection:
        rows = connection.execute(select(t.arrival).order_by(t.arrival.c.id)).all()
    return [(row.name, service.blobs.read(row.sha256)) for row in rows]


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def passes(service, count=3):
    """Wait for some passes over the folder."""
    time.sleep(count * 3 * watch.LOOK_S)
    return received(service)


def test_files_of_all_folders_are_received_once_and_not_changed(service, inbox):
    (inbox / "a/b/c").mkdir(parents=True)
    for name in ("one.png", "a/two.png", "a/b/c/three.png"):
        (inbox / name).write_bytes(name.encode())
    before = sorted((path, path.stat().st_mtime_ns) for path in inbox.rglob("*"))
    with watching(service, inbox) as watcher:
        until(lambda: len(received(service)) == 3)
        assert sorted(passes(service)) == [
            ("a/b/c/three.png", b"a/b/c/three.png"), ("a/two.png", b"a/two.png"),
            ("one.png", b"one.png"),
        ]  # fmt: skip
        assert watcher.fault is None
    assert sorted((path, path.stat().st_mtime_ns) for path in inbox.rglob("*")) == before
    with service.database.read() as connection:
        assert set(connection.scalars(select(t.arrival.c.source))) == {"watch"}


def test_growing_file_is_received_when_complete(service, inbox):
    path = inbox / "slow.png"
    with watching(service, inbox):
        for n in range(20):
            with path.open("ab") as file:
                file.write(bytes([n]) * 100)
            time.sleep(watch.LOOK_S / 3)
            assert received(service) == []
        until(lambda: received(service))
        assert [len(content) for _, content in received(service)] == [2000]


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs read leases of Linux")
def test_file_open_for_writing_is_not_received(service, inbox):
    with watching(service, inbox):
        with (inbox / "open.png").open("wb") as file:
            file.write(b"half")
            file.flush()
            assert passes(service) == []
            file.write(b" and half")
        until(lambda: received(service))
        assert received(service) == [("open.png", b"half and half")]


def test_renamed_and_copied_files_are_not_received_again(service, inbox):
    (inbox / "a.png").write_bytes(b"a")
    with watching(service, inbox):
        until(lambda: received(service))
        (inbox / "a.png").rename(inbox / "renamed.png")
        passes(service, 1)
        (inbox / "sub").mkdir()
        shutil.copy(inbox / "renamed.png", inbox / "copy.png")
        shutil.copy2(inbox / "renamed.png", inbox / "sub/copy.png")
        os.utime(inbox / "copy.png", (1, 1))
        assert passes(service) == [("a.png", b"a")]


def test_replaced_file_is_received_and_earlier_content_is_not_repeated(service, inbox):
    path = inbox / "a.png"
    path.write_bytes(b"first")
    with watching(service, inbox):
        until(lambda: received(service))
        changed = path.stat().st_mtime_ns
        (inbox / "new.tmp").write_bytes(b"other")  # of the same size
        os.utime(inbox / "new.tmp", ns=(changed + 1, changed + 1))
        (inbox / "new.tmp").replace(path)
        until(lambda: len(received(service)) == 2)
        path.write_bytes(b"first")
        assert passes(service) == [("a.png", b"first"), ("a.png", b"other")]


def test_restart_and_deletion_do_not_repeat_files(tmp_path, inbox):
    (inbox / "a.png").write_bytes(b"a")
    with opened(tmp_path / "data") as service, watching(service, inbox):
        until(lambda: received(service))
        service.remove(1, "admin")
    with opened(tmp_path / "data") as service, watching(service, inbox):
        (inbox / "a.png").rename(inbox / "b.png")
        time.sleep(6 * watch.LOOK_S)
        with service.database.read() as connection:
            assert connection.scalar(select(func.count()).select_from(t.arrival)) == 1
        (inbox / "new.png").write_bytes(b"new")
        until(lambda: service.blobs.path(_digest(b"new")).exists())
    assert not service.blobs.path(_digest(b"a")).exists()


def test_results_unfinished_files_links_and_special_files_are_skipped(service, inbox, tmp_path):
    (inbox / "results").mkdir()
    (inbox / "results/results.csv").write_bytes(TABLE_BEGINS + b"x\n")
    (inbox / "results/results.jsonl").write_bytes(b"{}")
    (inbox / "results/picture.png").write_bytes(b"picture")
    (inbox / "a.part").write_bytes(b"part")
    (inbox / "empty.png").write_bytes(b"")
    os.mkfifo(inbox / "pipe")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (inbox / "link").symlink_to(outside / "secret")
    (inbox / "folder").symlink_to(outside)
    (inbox / "loop").symlink_to(inbox)
    (inbox / "broken").symlink_to(inbox / "none")
    (inbox / os.fsdecode(b"\xff\n.png")).write_bytes(b"name")
    with watching(service, inbox) as watcher:
        until(lambda: len(received(service)) == 2)
        names = sorted(name for name, _ in passes(service, 2))
        assert names == ["results/picture.png", "\ufffd.png"]
        assert watcher.fault is None


def test_data_folder_is_skipped(tmp_path):
    with opened(tmp_path / "data") as service:
        (tmp_path / "a.png").write_bytes(b"a")
        with watching(service, tmp_path):
            until(lambda: received(service))
            assert passes(service) == [("a.png", b"a")]
        with pytest.raises(UsageError, match="data folder"):
            Watcher(service, service.folder)


def test_too_large_file_is_checked_once(tmp_path, inbox, caplog):
    (inbox / "large.png").write_bytes(b"x" * 2000)
    (inbox / "small.png").write_bytes(b"x" * 1000)
    with opened(tmp_path / "data", most_bytes=1024) as service, watching(service, inbox):
        until(lambda: received(service))
        assert [name for name, _ in passes(service)] == ["small.png"]
    assert caplog.text.count("too large") == 1
    assert "large.png" not in caplog.text


def test_full_disk_delays_files_without_loss(service, inbox, monkeypatch):
    monkeypatch.setattr(Blobs, "has_room", lambda *_: False)
    (inbox / "a.png").write_bytes(b"a")
    with watching(service, inbox) as watcher:
        until(lambda: watcher.fault)
        assert "disk is full" in watcher.fault
        assert received(service) == []
        monkeypatch.undo()
        until(lambda: received(service))
        until(lambda: watcher.fault is None)


def test_missing_folder_is_a_fault_until_it_returns(service, inbox):
    with watching(service, inbox) as watcher:
        inbox.rename(inbox.with_name("away"))
        until(lambda: watcher.fault)
        assert str(inbox) not in watcher.fault
        inbox.with_name("away").rename(inbox)
        (inbox / "a.png").write_bytes(b"a")
        until(lambda: received(service))
        until(lambda: watcher.fault is None)


def test_two_watchers_of_one_folder_receive_each_file_once(tmp_path, inbox, postgresql_url):
    database = Database(postgresql_url)
    schema.upgrade(database)
    folder = tmp_path / "data"
    folder.mkdir()
    parts = (ServiceConfig(reserve_bytes=0), database, Blobs(folder, 0), ViewCache(folder))
    for n in range(30):
        (inbox / f"{n}.png").write_bytes(str(n).encode())
    first, second = Service(folder, *parts), Service(folder, *parts)
    with watching(first, inbox), watching(second, inbox):
        until(lambda: len(received(first)) == 30)
        assert len(passes(first)) == 30
    database.close()


def test_memory_does_not_grow_with_the_folder(tmp_path):
    def peak(files):
        root = tmp_path / str(files)
        for n in range(files):
            path = root / str(n % 10) / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        tracemalloc.start()
        count = sum(1 for _ in watch._Walk(root, tmp_path).files())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == files
        return most

    peak(10)
    assert peak(3000) < peak(100) + 20_000


def test_stop_ends_a_waiting_watcher(service, inbox, monkeypatch):
    monkeypatch.setattr(watch, "LOOK_S", 1000.0)
    (inbox / "a.png").write_bytes(b"a")
    watcher = Watcher(service, inbox)
    time.sleep(0.2)
    thread = threading.Thread(target=watcher.stop)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def _digest(content):
    import hashlib

    return hashlib.sha256(content).hexdigest()
