"""Backups of a data folder, made while the service runs, and their restoration.

A backup is a folder with the database (SQLite), ``blobs/`` and ``backup.json``, which is written
last. Rendered pictures are not included, because they can be rendered again. PostgreSQL databases
are backed up with ``pg_dump``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import DatabaseError

from .. import lock, version
from ..atomic import replacing, sync_folder, write_atomic
from ..errors import FxpipeError, InputMissingError, StartError, UsageError
from . import audit_log, schema
from . import tables as t
from .blobs import Blobs
from .database import DATABASE, Database, copy_database, now_ms, read_only

MANIFEST = "backup.json"
_FORMAT = 1
_TRIES = 3
_DIGEST = re.compile("[0-9a-f]{64}")


class BackupError(FxpipeError):
    """A backup is incomplete or damaged."""

    exit_code = 1


@dataclass
class Report:
    """What a backup contains.

    Attributes:
        files: Number of stored files.
        size: Their bytes.
        is_postgresql: Whether the database is not included.
        faults: Missing and damaged parts.
    """

    files: int = 0
    size: int = 0
    is_postgresql: bool = False
    faults: list[str] = field(default_factory=list)


def back_up(data: Path, target: Path, database: str | None = None) -> Report:
    """Back up a data folder; the service may be running.

    Stored files become hard links where the target is on the same file system, otherwise copies.

    Args:
        data: The data folder.
        target: New folder. Until the backup is complete, it has the suffix ``.incomplete``.
        database: URL of a PostgreSQL database, which is not backed up; None for SQLite.

    Raises:
        InputMissingError: There is no data folder.
        UsageError: The target exists.
        BackupError: A stored file is missing.
        OSError: The target cannot be written.
    """
    if not (data / "blobs").is_dir() or (database is None and not (data / DATABASE).is_file()):
        raise InputMissingError(f"{data}: not a data folder of fxpipe serve")
    if target.exists():
        raise UsageError(f"{target}: exists, expected a new folder", "choose another name")
    partial = target.with_name(target.name + ".incomplete")
    partial.mkdir(parents=True, exist_ok=True)
    with lock.exclusive(partial):
        source, copies = Blobs(data, 0), partial / "blobs"
        copies.mkdir(exist_ok=True)
        # Copy most files first, to shorten the time between the snapshot and the last copy.
        for sha256 in source.all():
            _copy(source.path(sha256), _place(copies, sha256))
        for attempt in range(1, _TRIES + 1):
            report, live = _complete(data, database, partial, source)
            if not report.faults:
                break
            if attempt == _TRIES:
                raise BackupError(
                    f"{data}: {len(report.faults)} stored files are missing: {report.faults[0]} …",
                    "run `fxpipe restore --check` on an earlier backup",
                )
        for path in list(copies.glob("*/*")):
            if path.name not in live:
                path.unlink()  # deleted in the meantime, or unfinished
        content = {
            "format": _FORMAT, "created_ms": now_ms(), "version": version(),
            "database": "sqlite" if database is None else "postgresql",
            "files": report.files, "bytes": report.size,
        }  # fmt: skip
        write_atomic(partial / MANIFEST, json.dumps(content, indent=2).encode())
    partial.replace(target)
    sync_folder(target.parent)
    return report


def _complete(
    data: Path, database: str | None, partial: Path, source: Blobs
) -> tuple[Report, set[str]]:
    """Take a snapshot of the database, and copy the files that it refers to."""
    if database is None:
        with replacing(partial / DATABASE) as path:
            copy_database(data / DATABASE, path)
    report, live = Report(), set[str]()
    with _reading(partial, database) as connection:
        for sha256, size in _live(connection):
            try:
                _copy(source.path(sha256), _place(partial / "blobs", sha256))
            except FileNotFoundError:
                report.faults.append(sha256)
            live.add(sha256)
            report.files += 1
            report.size += size
    return report, live


@contextmanager
def _reading(folder: Path, database: str | None) -> Iterator[Connection]:
    if database is None:
        with read_only(folder / DATABASE) as connection:
            yield connection
        return
    with closing(Database(database)) as opened, opened.read() as connection:
        yield connection


def restore(source: Path, data: Path) -> Report:
    """Restore a backup to a new data folder. The database is renamed last.

    Args:
        source: The backup.
        data: New or empty folder.

    Raises:
        InputMissingError: The source is not a complete backup.
        StartError: The backup is from a newer version of fxpipe.
        UsageError: The folder is in use or has content.
        BackupError: The backup is incomplete.
        OSError: The folder cannot be written.
    """
    manifest = read_manifest(source)
    _refuse_newer(source, manifest)
    data.mkdir(parents=True, exist_ok=True)
    with lock.exclusive(data):
        # An interrupted restore leaves only files, and can be repeated.
        if any(path.name not in (lock.NAME, "blobs", "tmp") for path in data.iterdir()):
            raise UsageError(f"{data}: has content, expected an empty or new folder")
        data.chmod(0o700)
        target = Blobs(data, 0)
        report = Report(is_postgresql=manifest["database"] != "sqlite")
        for path in _files(source / "blobs"):
            final = target.path(path.name)
            final.parent.mkdir(exist_ok=True)
            _write_copy(path, final)
            report.files += 1
            report.size += path.stat().st_size
        if report.files != manifest["files"]:
            raise BackupError(
                f"{source}: found {report.files} stored files, expected {manifest['files']}"
            )
        if not report.is_postgresql:
            with replacing(data / DATABASE) as partial:
                shutil.copyfile(source / DATABASE, partial)
    return report


def check(source: Path) -> Report:
    """Hash all files of a backup, and check its database and its audit log.

    Raises:
        InputMissingError: The folder is not a complete backup.
        StartError: The backup is from a newer version of fxpipe.
    """
    manifest = read_manifest(source)
    _refuse_newer(source, manifest)
    files = list(_files(source / "blobs"))
    report = Report(len(files), sum(path.stat().st_size for path in files))
    if report.files != manifest["files"]:
        report.faults.append(f"found {report.files} files, expected {manifest['files']}")
    report.faults += [f"file {path.name} was changed" for path in files if not _is_intact(path)]
    if manifest["database"] != "sqlite":
        return report
    names = {path.name for path in files}
    with read_only(source / DATABASE) as connection:
        state = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
        if state != "ok":
            report.faults.append("the database is damaged")
            return report
        report.faults += [
            f"file {sha256} is missing" for sha256, _ in _live(connection) if sha256 not in names
        ]
        if fault := audit_log.first_fault(connection):
            report.faults.append(f"audit log: {fault}")
    return report


def read_manifest(source: Path) -> dict[str, Any]:
    """The content of ``backup.json``.

    Raises:
        InputMissingError: It is missing or not valid.
        StartError: It has a newer format.
    """
    try:
        content = json.loads((source / MANIFEST).read_bytes())
        expected = {"format": int, "database": str, "files": int}
        if not all(isinstance(content[key], kind) for key, kind in expected.items()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputMissingError(
            f"{source}: not a complete backup, expected {MANIFEST}", "make it with `fxpipe backup`"
        ) from error
    if content["format"] > _FORMAT:
        raise StartError(
            f"{source}: format {content['format']}, expected at most {_FORMAT}",
            "restore it with a newer fxpipe",
        )
    return dict(content)


def _refuse_newer(source: Path, manifest: dict[str, Any]) -> None:
    if manifest["database"] != "sqlite":
        return
    if not (source / DATABASE).is_file():
        raise InputMissingError(f"{source}: found no {DATABASE}, expected a complete backup")
    try:
        with read_only(source / DATABASE) as connection:
            schema.refuse_newer(connection)
    except DatabaseError as error:
        raise BackupError(f"{source / DATABASE}: damaged, expected an SQLite database") from error


def _live(connection: Connection) -> Iterator[tuple[str, int]]:
    """Digests and sizes of the stored files that are not deleted."""
    query = select(t.blob.c.sha256, t.blob.c.size).where(t.blob.c.deleted_ms.is_(None))
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield row.sha256, row.size


def _files(blobs: Path) -> Iterator[Path]:
    """Complete stored files of a folder, which are named by their digests."""
    for folder in sorted(blobs.iterdir()):
        if folder.is_dir():
            yield from (path for path in sorted(folder.iterdir()) if _DIGEST.fullmatch(path.name))


def _is_intact(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == path.name
    except OSError:
        return False


def _place(blobs: Path, sha256: str) -> Path:
    folder = blobs / sha256[:2]
    folder.mkdir(exist_ok=True)
    return folder / sha256


def _copy(source: Path, target: Path) -> None:
    """Hard-link a stored file, or copy it if the target is on another file system."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        _write_copy(source, target)


def _write_copy(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        shutil.copyfile(source, partial)
