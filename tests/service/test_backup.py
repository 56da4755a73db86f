"""Backups of a running service, and restoring them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from pipeline import lock
from pipeline.cli import main
from pipeline.service import arrivals, backup, schema
from pipeline.service import tables as t
from pipeline.service.arrivals import Arrival
from pipeline.service.blobs import Blobs
from pipeline.service.database import Database, sqlite_url


class Data:
    """A data folder with an open database."""

    def __init__(self, folder, url=None):
        self.folder, self.blobs = folder, Blobs(folder, 0)
        self.database = Database(url or sqlite_url(folder))
        schema.upgrade(self.database)

    def receive(self, content):
        arrival = Arrival(self.blobs.store(content), "a.png", "http", "s")
        return self.database.write(lambda c: arrivals.receive(c, arrival, lambda _: True))[0]

    def remove(self, number):
        for sha256 in self.database.write(lambda c: arrivals.remove(c, number, "admin")):
            self.unlink(sha256)

    def unlink(self, sha256):
        self.database.write(lambda c: arrivals.unlink(c, sha256, self.blobs.remove))

    def close(self):
        self.database.close()


@pytest.fixture
def data(tmp_path):
    with closing(Data(tmp_path / "data")) as opened:
        for n in range(5):
            opened.receive(bytes([n]) * 1000)
        yield opened


def fxpipe(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def contents(folder):
    """Contents of the existing pictures, in order of arrival."""
    with closing(Database(sqlite_url(folder))) as database, database.read() as connection:
        query = select(t.arrival.c.sha256).where(t.arrival.c.deleted_ms.is_(None))
        digests = list(connection.scalars(query.order_by(t.arrival.c.id)))
    return [Blobs(folder, 0).read(sha256) for sha256 in digests]


def test_restored_backup_equals_the_original(data, tmp_path):
    result = fxpipe("backup", "--data", data.folder, "--to", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert "5 files" in result.output
    data.receive(b"later")
    result = fxpipe("restore", "--from", tmp_path / "b", "--data", tmp_path / "new", "--check")
    assert result.exit_code == 0, result.output
    assert "5 files are intact" in result.output
    assert "5 files restored" in result.output
    assert contents(tmp_path / "new") == [bytes([n]) * 1000 for n in range(5)]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert fxpipe("audit-log", "verify", "--data", tmp_path / "new").exit_code == 0


def test_backup_on_the_same_disk_uses_hard_links_and_survives_deletions(data, tmp_path):
    fxpipe("backup", "--data", data.folder, "--to", tmp_path / "b")
    sha256 = next(data.blobs.all())
    linked = tmp_path / "b/blobs" / sha256[:2] / sha256
    assert linked.stat().st_ino == data.blobs.path(sha256).stat().st_ino
    for number in range(1, 6):
        data.remove(number)
    assert list(data.blobs.all()) == []
    fxpipe("restore", "--from", tmp_path / "b", "--data", tmp_path / "new")
    assert len(contents(tmp_path / "new")) == 5
    new = Blobs(tmp_path / "new", 0).path(sha256)
    assert new.stat().st_ino != linked.stat().st_ino


def test_files_are_copied_to_another_file_system(data, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    report = backup.back_up(data.folder, tmp_path / "b")
    monkeypatch.undo()
    assert (report.files, report.size) == (5, 5000)
    assert backup.check(tmp_path / "b").faults == []


def test_deleted_pictures_are_not_in_a_backup(data, tmp_path):
    data.remove(1)
    Blobs(data.folder, 0).store(b"unregistered")
    assert backup.back_up(data.folder, tmp_path / "b").files == 4
    assert len([path for path in (tmp_path / "b/blobs").glob("*/*") if path.is_file()]) == 4


def test_backups_during_uploads_and_removals_are_complete(data, tmp_path):
    stopping = threading.Event()

    def work(name):
        n = 0
        while not stopping.is_set():
            number = data.receive(f"picture {n} of {name}".encode())
            if n % 3 == 0:
                data.remove(number)
            n += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(4):
            backup.back_up(data.folder, tmp_path / f"b{n}")
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    for n in range(4):
        assert backup.check(tmp_path / f"b{n}").faults == []
        backup.restore(tmp_path / f"b{n}", tmp_path / f"new{n}")
        assert len(contents(tmp_path / f"new{n}")) >= 5


def test_interrupted_backup_is_continued_and_never_restored(data, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(backup, "write_atomic", fail)
        result = fxpipe("backup", "--data", data.folder, "--to", tmp_path / "b")
        assert result.exit_code == 3
        assert "No space left" in result.output
    assert not (tmp_path / "b").exists()
    result = fxpipe("restore", "--from", tmp_path / "b.incomplete", "--check")
    assert result.exit_code == 2
    assert "not a complete backup" in result.output
    assert fxpipe("backup", "--data", data.folder, "--to", tmp_path / "b").exit_code == 0
    assert not (tmp_path / "b.incomplete").exists()
    assert fxpipe("backup", "--data", data.folder, "--to", tmp_path / "b").exit_code == 2


def test_missing_file_fails_the_backup(data, tmp_path):
    data.blobs.remove(next(data.blobs.all()))
    result = fxpipe("backup", "--data", data.folder, "--to", tmp_path / "b")
    assert result.exit_code == 1
    assert "1 stored files are missing" in result.output
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("fault", ["changed", "missing", "audit", "database", "manifest"])
def test_check_reports_all_damage(data, tmp_path, fault):
    target = tmp_path / "b"
    backup.back_up(data.folder, target)
    path = sorted((target / "blobs").glob("*/*"))[0]
    if fault in ("changed", "missing"):
        content = path.read_bytes()
        path.unlink()  # it is a hard link
        if fault == "changed":
            path.write_bytes(content[:-1] + b"x")
    elif fault == "audit":
        with closing(sqlite3.connect(target / "fxpipe.sqlite")) as database, database:
            database.execute("UPDATE audit SET actor = 'other' WHERE id = 2")
    elif fault == "database":
        file = target / "fxpipe.sqlite"
        file.write_bytes(b"x" * 100 + file.read_bytes()[100:])
    else:
        (target / "backup.json").write_text('{"format": 1}')
    result = fxpipe("restore", "--from", target, "--data", tmp_path / "new", "--check")
    assert result.exit_code == (2 if fault == "manifest" else 1), result.output
    assert not (tmp_path / "new").exists()


def test_folder_in_use_or_with_content_is_refused(data, tmp_path):
    backup.back_up(data.folder, tmp_path / "b")
    result = fxpipe("restore", "--from", tmp_path / "b", "--data", data.folder)
    assert result.exit_code == 2
    assert "has content" in result.output
    (tmp_path / "new").mkdir()
    with lock.exclusive(tmp_path / "new"):
        result = fxpipe("restore", "--from", tmp_path / "b", "--data", tmp_path / "new")
        assert result.exit_code == 2
        assert "another fxpipe process" in result.output
    assert fxpipe("restore", "--from", tmp_path / "b").exit_code == 2
    assert fxpipe("backup", "--data", tmp_path / "none", "--to", tmp_path / "c").exit_code == 2


def test_backup_of_a_newer_version_is_refused(data, tmp_path):
    backup.back_up(data.folder, tmp_path / "b")
    with closing(sqlite3.connect(tmp_path / "b/fxpipe.sqlite")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    result = fxpipe("restore", "--from", tmp_path / "b", "--data", tmp_path / "new")
    assert result.exit_code == 3
    assert "version 9999" in result.output
    manifest = tmp_path / "b/backup.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    assert fxpipe("restore", "--from", tmp_path / "b", "--check").exit_code == 3


def test_interrupted_restore_can_be_repeated(data, tmp_path, monkeypatch):
    backup.back_up(data.folder, tmp_path / "b")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", fail)
        result = fxpipe("restore", "--from", tmp_path / "b", "--data", tmp_path / "new")
        assert result.exit_code == 3
    assert not (tmp_path / "new/fxpipe.sqlite").exists()
    result = fxpipe("restore", "--from", tmp_path / "b", "--data", tmp_path / "new")
    assert result.exit_code == 0, result.output
    assert len(contents(tmp_path / "new")) == 5


def test_backup_with_postgresql_contains_only_files(tmp_path, postgresql_url):
    with closing(Data(tmp_path / "data", postgresql_url)) as data:
        data.receive(b"a")
        data.remove(data.receive(b"b"))
        words = ("--data", data.folder, "--database", postgresql_url)
        assert fxpipe("backup", *words, "--to", tmp_path / "b").exit_code == 0
        result = fxpipe("audit-log", "verify", *words)
        assert result.exit_code == 0, result.output
        assert result.output.startswith("3 entries")
    assert not (tmp_path / "b/fxpipe.sqlite").exists()
    result = fxpipe("restore", "--from", tmp_path / "b", "--data", tmp_path / "new", "--check")
    assert result.exit_code == 0, result.output
    assert "pg_restore" in result.output
    assert len(list(Blobs(tmp_path / "new", 0).all())) == 1


def test_audit_log_reports_its_first_fault(data):
    words = ("audit-log", "verify", "--data", data.folder)
    result = fxpipe(*words)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("5 entries, the last one is ")
    audit = t.audit
    data.database.write(lambda c: c.execute(update(audit).where(audit.c.id > 2).values(actor="x")))
    result = fxpipe(*words)
    assert result.exit_code == 1
    assert "entry 3 was changed" in result.output
    data.database.write(lambda c: c.execute(audit.delete().where(audit.c.id == 3)))
    result = fxpipe(*words)
    assert "entry 4 does not follow" in result.output
    assert fxpipe("audit-log", "verify", "--data", data.folder / "none").exit_code == 2
    assert not Path(data.folder / "none").exists()
