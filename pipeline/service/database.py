"""Access to the database: one writer with group commit for SQLite, a pool for PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Table, create_engine, event, insert, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from ..errors import InputMissingError, StartError

T = TypeVar("T")

DATABASE = "fxpipe.sqlite"
"""Name of the SQLite database in a data folder."""

_MOST_TOGETHER = 64
"""Maximum number of write operations per SQLite transaction."""
_BUSY_S = 30.0
_WRITERS = 8
_RETRIES = 5
_LOCK = 0x66787069


def now_ms() -> int:
    """Milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000


class Database:
    """A database with durable writes: a write that has returned is on the disk.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql+psycopg://…``.

    Attributes:
        url: As given.

    Raises:
        StartError: It cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.url: URL = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_S}} if self.is_sqlite else {}
        self._engine = create_engine(
            self.url, pool_size=_WRITERS, max_overflow=16, pool_pre_ping=not self.is_sqlite,
            **options,
        )  # fmt: skip
        if self.is_sqlite:
            event.listen(self._engine, "connect", _configure)
        try:
            self._engine.connect().close()
        except OperationalError as error:
            raise StartError(f"{_without_password(self.url)}: cannot open the database") from error
        self._queue: SimpleQueue[_Write[Any] | None] = SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        if self.is_sqlite:
            self._thread = threading.Thread(
                target=self._write_all, name="fxpipe-database", daemon=True
            )
            self._thread.start()
        else:
            self._pool = ThreadPoolExecutor(_WRITERS, "fxpipe-database")

    @property
    def path(self) -> Path | None:
        """File of an SQLite database."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that reads a consistent state."""
        with self._engine.connect() as connection:
            yield connection

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Queue a write operation; the future completes when its transaction is on the disk.

        Args:
            work: Called with a connection inside a transaction. If it raises, only its changes
                are rolled back.

        Raises:
            RuntimeError: The database is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the database is closed")
            if not self.is_sqlite:
                return self._pool.submit(self._write_alone, work)
            write = _Write(work)
            self._queue.put(write)
        return write.future

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a write operation and wait until it is durable; see :meth:`submit`."""
        return self.submit(work).result()

    def close(self) -> None:
        """Finish the queued write operations and close all connections."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self.is_sqlite:
                self._queue.put(None)
        if self.is_sqlite:
            self._thread.join()
        else:
            self._pool.shutdown()
        self._engine.dispose()

    def _write_alone(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(_RETRIES):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except (IntegrityError, OperationalError):
                # A deadlock, a lost connection, or a row that another process has just inserted.
                if attempt == _RETRIES - 1:
                    raise
                time.sleep(0.05 * 2**attempt)
        raise AssertionError  # pragma: no cover

    def _write_all(self) -> None:
        """Writer thread of SQLite; all waiting operations share one transaction."""
        ended = False
        while not ended:
            group = [self._queue.get()]
            while len(group) < _MOST_TOGETHER:
                try:
                    group.append(self._queue.get_nowait())
                except Empty:
                    break
            ended = None in group
            self._write_group([write for write in group if write is not None])

    def _write_group(self, group: list[_Write[Any]]) -> None:
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    for write in group:
                        write.run(connection)
                    connection.exec_driver_sql("COMMIT")
                except BaseException:
                    with suppress(
                        OperationalError
                    ):  # a full disk has already ended the transaction
                        connection.exec_driver_sql("ROLLBACK")
                    raise
        except Exception as error:  # noqa: BLE001  (raised by each future)
            for write in group:
                write.fail(error)
        for write in group:
            write.finish()


class _Write(Generic[T]):
    """A queued write operation and its result."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.future: Future[T] = Future()
        self._work = work
        self._value: T | None = None
        self._error: Exception | None = None

    def run(self, connection: Connection) -> None:
        """Run the operation inside a savepoint; an error is stored for its future."""
        connection.exec_driver_sql("SAVEPOINT operation")
        try:
            self._value = self._work(connection)
            connection.exec_driver_sql("RELEASE operation")
        except OperationalError:
            raise  # error of the disk or the database: the whole transaction fails
        except Exception as error:  # noqa: BLE001  (raised by the future)
            connection.exec_driver_sql("ROLLBACK TO operation")
            connection.exec_driver_sql("RELEASE operation")
            self._error = error

    def fail(self, error: Exception) -> None:
        """Set the error of the transaction on the future."""
        self._error = error

    def finish(self) -> None:
        """Complete the future."""
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._value)  # type: ignore[arg-type]


def _configure(connection: sqlite3.Connection, _: object) -> None:
    """Configure an SQLite connection; this module begins transactions itself."""
    connection.isolation_level = None
    for line in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {line}")


def serialise(connection: Connection) -> None:
    """Serialise the transactions that call this function, until they end.

    Their rows then become visible in order of their numbers. SQLite always has a single writer.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def insert_row(connection: Connection, table: Table, **values: Any) -> int:
    """Insert a row, and return its number."""
    key = connection.execute(insert(table).values(**values)).inserted_primary_key
    assert key is not None  # noqa: S101  (the tables have an id)
    return int(key[0])


def _without_password(url: URL) -> str:
    """The URL without a password."""
    return url.render_as_string(hide_password=True)


def copy_database(source: Path, target: Path) -> None:
    """Copy a consistent state of an SQLite database, which may be in use.

    The copy is a single file without a write-ahead log.

    Raises:
        OSError: It cannot be copied.
    """
    target.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new, pages=-1)
            new.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise OSError(f"cannot copy the database ({error})") from error


@contextmanager
def read_only(path: Path) -> Iterator[Connection]:
    """A read-only connection to an SQLite file, which a service may be using.

    Raises:
        InputMissingError: There is no such file.
    """
    if not path.is_file():
        raise InputMissingError(f"{path}: not found, expected a database of fxpipe serve")
    address = f"{path.resolve().as_uri()}?mode=ro"
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address, uri=True, timeout=_BUSY_S),
        poolclass=NullPool,
    )  # fmt: skip
    with engine.connect() as connection:
        yield connection


_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "glusterfs", "fuse.sshfs"}


def network_file_system(path: Path) -> str | None:
    """Type of the network file system that contains a path, on Linux; None for local disks.

    SQLite's write-ahead log needs shared memory, and its locks are not reliable on network file
    systems.
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    real, best, kind = path.resolve(), -1, ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount = Path(fields.split()[4].replace("\\040", " "))
        if real.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), rest.split()[0]
    return kind if kind in _NETWORK else None


def sqlite_url(folder: Path) -> str:
    """URL of the SQLite database in a data folder."""
    return URL.create("sqlite", database=str(folder / DATABASE)).render_as_string(False)
