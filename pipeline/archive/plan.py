"""The plan of a run: all files of the inputs in the order of the walk, in one SQLite file.

A plan is written once and only read afterwards, by any number of processes. Chunk ``n`` has the
files at positions ``n * chunk_files`` to ``(n + 1) * chunk_files - 1``.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..atomic import replacing
from ..errors import InputMissingError, UsageError
from ..report.stream import naming_file

CHUNK_FILES = 512
_SCHEMA = 1
_BATCH = 1000
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE file (
    position INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    size INTEGER,
    mtime_ns INTEGER
);
"""

_Row = tuple[int, bytes, int | None, int | None]

State = tuple[int, int] | None
"""Size in bytes and time of modification in ns of a file; None if it cannot be accessed."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file of a plan.

    Attributes:
        path: The file.
        state: As it was when the plan was made.
    """

    path: Path
    state: State


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that was opened.

    Attributes:
        file: The SQLite file.
        root: See :func:`pipeline.report.record.to_record`.
        digest: SHA-256 of paths, sizes, times and chunk size: the same files give the same digest.
        chunk_files: Number of files in each chunk but the last.
        files: Number of files.
    """

    file: Path
    root: Path
    digest: str
    chunk_files: int
    files: int

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.files // self.chunk_files)

    def chunk(self, number: int) -> list[PlannedFile]:
        """The files of a chunk, in order.

        Raises:
            ValueError: There is no such chunk.
        """
        if not 0 <= number < self.chunks:
            raise ValueError(f"found chunk {number}, expected 0 to {self.chunks - 1}")
        first = number * self.chunk_files
        with _opened(self.file) as connection:
            rows = connection.execute(
                "SELECT path, size, mtime_ns FROM file WHERE position >= ? AND position < ? "
                "ORDER BY position", (first, first + self.chunk_files),
            ).fetchall()  # fmt: skip
        return [
            PlannedFile(self.root / os.fsdecode(path), None if size is None else (size, time))
            for path, size, time in rows
        ]

    def files_of(self, chunks: Sequence[int]) -> int:
        """Number of files in some chunks."""
        last = self.chunks - 1
        return sum(
            self.files - last * self.chunk_files if one == last else self.chunk_files
            for one in chunks
        )

    def shard(self, number: int, count: int) -> range:
        """The chunks of one of several processes: consecutive, of almost the same number.

        Args:
            number: From 1 to ``count``.
            count: Number of processes.

        Raises:
            ValueError: There is no such shard.
        """
        if not 1 <= number <= count:
            raise ValueError(f"found shard {number}/{count}, expected 1/{count} to {count}/{count}")
        return range((number - 1) * self.chunks // count, number * self.chunks // count)


def open_plan(file: Path, root: Path | None = None) -> Plan:
    """Open a plan.

    Args:
        file: A file of :func:`write_plan`.
        root: Where the folder of the inputs is on this machine; None if it is where it was.

    Raises:
        InputMissingError: There is no such file, or no such folder.
        UsageError: It is not a plan, or a plan of a newer version.
    """
    if not file.is_file():
        raise InputMissingError(f"{file}: not found, expected a file of `fxpipe plan`")
    try:
        with _opened(file) as connection:
            about = dict(connection.execute("SELECT name, value FROM about").fetchall())
        schema = int(about["schema"])
        if schema != _SCHEMA:
            raise UsageError(f"{file}: found a plan of schema {schema}, expected {_SCHEMA}")
        plan = Plan(
            file, root or Path(os.fsdecode(bytes.fromhex(about["root"]))), about["digest"],
            int(about["chunk_files"]), int(about["files"]),
        )  # fmt: skip
    except (sqlite3.DatabaseError, KeyError, ValueError) as error:
        raise UsageError(f"{file}: found another file, expected one of `fxpipe plan`") from error
    if not plan.root.is_dir():
        raise InputMissingError(
            f"{plan.root}: not found, expected the folder of the plan {file}",
            "name the folder on this machine with --root",
        )
    return plan


def write_plan(
    file: Path, root: Path, paths: Iterable[Path], chunk_files: int = CHUNK_FILES
) -> Plan:
    """Write a plan; an existing file is replaced.

    Args:
        file: The SQLite file to write.
        root: Folder that contains all files.
        paths: The files, in the order of the walk; each begins with ``root``.
        chunk_files: Number of files in a chunk, 1 or more.

    Raises:
        OutputError: It cannot be written.
    """
    digest = hashlib.sha256(f"{_SCHEMA} {chunk_files}\n".encode())
    count = 0
    with (
        naming_file(file),
        replacing(file) as partial,
        closing(sqlite3.connect(partial, isolation_level=None)) as connection,
    ):
        # A plan that is not complete is discarded, so it needs no journal.
        connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _TABLES)
        connection.execute("BEGIN")
        found = _rows(root, paths)
        while rows := list(islice(found, _BATCH)):
            for _, path, size, time in rows:
                digest.update(b"%s\0%s %s\n" % (path, str(size).encode(), str(time).encode()))
            connection.executemany("INSERT INTO file VALUES (?, ?, ?, ?)", rows)
            count += len(rows)
        about = {
            "schema": _SCHEMA, "root": os.fsencode(root.absolute()).hex(),
            "digest": digest.hexdigest(), "chunk_files": chunk_files, "files": count,
        }  # fmt: skip
        connection.executemany(
            "INSERT INTO about VALUES (?, ?)", [(name, str(value)) for name, value in about.items()]
        )
        connection.execute("COMMIT")
    return open_plan(file)


def state_of(path: Path) -> State:
    """Size and time of modification of a file at present."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _rows(root: Path, paths: Iterable[Path]) -> Iterator[_Row]:
    for position, path in enumerate(paths):
        size, time = state_of(path) or (None, None)
        yield position, os.fsencode(path.relative_to(root)), size, time


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    # Immutable: no lock is needed, also on network shares.
    address = f"{file.resolve().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        yield connection
