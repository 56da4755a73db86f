"""The database schema: its migrations, upgrades of earlier versions, refusal of newer ones."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select, text

from pipeline.errors import StartError
from pipeline.service import schema
from pipeline.service import tables as t
from pipeline.service.database import Database, sqlite_url

FIXTURES = Path(__file__).parent / "databases"


def test_migrations_create_the_tables_of_the_code(database):
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, t.metadata) == []


def test_missing_column_is_detected(database):
    database.write(lambda c: c.execute(text("ALTER TABLE rule ADD COLUMN other INTEGER")))
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), t.metadata) != []


def test_upgrade_of_the_newest_version_does_nothing(database):
    assert schema.upgrade(database) is False
    with database.read() as connection:
        assert schema.version_of(connection) == schema.newest()


def test_newer_database_is_refused_and_not_changed(database):
    database.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(StartError, match="version 9999, expected at most"):
        schema.upgrade(database)
    with database.read() as connection:
        assert schema.version_of(connection) == "9999"


def test_concurrent_starts_create_the_tables_once(postgresql_url):
    databases = [Database(postgresql_url) for _ in range(3)]
    try:
        with ThreadPoolExecutor(3) as pool:
            assert any(pool.map(schema.upgrade, databases))
        databases[0].write(lambda c: c.execute(insert(t.setting).values(key="k", value=1)))
    finally:
        for database in databases:
            database.close()


def test_failed_migration_changes_nothing(tmp_path, monkeypatch):
    with closing(Database(sqlite_url(tmp_path))) as database:

        def fail(config, _):
            connection = config.attributes["connection"]
            connection.exec_driver_sql("CREATE TABLE half (id INTEGER)")
            raise RuntimeError("a fault of the migration")

        with monkeypatch.context() as patch:
            patch.setattr(command, "upgrade", fail)
            with pytest.raises(RuntimeError, match="a fault"):
                schema.upgrade(database)
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT name FROM sqlite_master").all() == []
        assert schema.upgrade(database)


@pytest.mark.parametrize("version", [path.stem for path in sorted(FIXTURES.glob("*.sql"))])
def test_database_of_every_version_is_upgraded_with_its_content(version, tmp_path):
    path = tmp_path / "fxpipe.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FIXTURES / f"{version}.sql").read_text(encoding="utf-8"))
    with closing(Database(sqlite_url(tmp_path))) as database:
        schema.upgrade(database)
        with database.read() as connection:
            assert schema.version_of(connection) == schema.newest()
            arrival = connection.execute(select(t.arrival)).one()
            user = connection.execute(select(t.user)).one()
            detail = connection.execute(select(t.detail)).one()
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, t.metadata) == []
    assert (arrival.name, arrival.state, arrival.answer) == ("hand.png", "answered", "positive")
    assert (user.name, user.role, user.blind) == ("Ada", "admin", False)
    assert detail.outcome == {"status": "ok"}
    copy = tmp_path / f"fxpipe.sqlite.{version}"
    assert copy.exists() is (version != schema.newest())


def test_every_version_has_a_fixture():
    folder = Path(schema.__file__).with_name("migrations")
    versions = {script.revision for script in ScriptDirectory(str(folder)).walk_revisions()}
    assert {path.stem for path in FIXTURES.glob("*.sql")} == versions


def test_older_sqlite_database_is_copied_before_its_upgrade(tmp_path, monkeypatch):
    """There is only one version so far, so the test defines an earlier one."""
    with closing(Database(sqlite_url(tmp_path))) as database:
        schema.upgrade(database)
        database.write(lambda c: c.execute(insert(t.setting).values(key="k", value=1)))
        upgraded = []
        monkeypatch.setattr(schema, "newest", lambda: "0002")
        monkeypatch.setattr(command, "upgrade", lambda *_: upgraded.append(True))
        assert schema.upgrade(database)
    assert upgraded == [True]
    with closing(sqlite3.connect(tmp_path / "fxpipe.sqlite.0001")) as copy:
        assert copy.execute("SELECT key FROM setting").fetchall() == [("k",)]
