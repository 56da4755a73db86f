"""Received files on the disk, named by their SHA-256: ``blobs/ab/abcd…``.

A file with its final name is complete and durable. File names of senders are never used.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ..atomic import sync, sync_folder
from ..errors import OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT}


class DiskFullError(OutputError):
    """The disk does not have enough free space."""


@dataclass(frozen=True, slots=True)
class Content:
    """A file that was stored.

    Attributes:
        sha256: Hex digest.
        size: Bytes.
    """

    sha256: str
    size: int


class Blobs:
    """Stored files of a data folder.

    Args:
        folder: The data folder; ``blobs/`` and ``tmp/`` are made in it.
        reserve_bytes: Free disk space in bytes below which no file is accepted.

    Raises:
        OSError: The folders cannot be made.
    """

    def __init__(self, folder: Path, reserve_bytes: int = 2**29) -> None:
        self._blobs, self._temporary = folder / "blobs", folder / "tmp"
        self._reserve = reserve_bytes
        for made in (self._blobs, self._temporary):
            made.mkdir(parents=True, exist_ok=True)

    def sweep(self, before: float = float("inf")) -> int:
        """Remove unfinished files of earlier processes; return their number.

        Args:
            before: Remove only files changed before this time, in seconds since 1970.
        """
        count = 0
        for path in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
        return count

    def has_room(self, size: int = 0) -> bool:
        """Whether ``size`` bytes fit on the disk without using the reserve."""
        return shutil.disk_usage(self._blobs).free - size >= self._reserve

    def receive(self) -> Receiving:
        """Start to receive a file; use the result as a context manager.

        Raises:
            DiskFullError: The disk is full.
            OSError: The file cannot be written.
        """
        if not self.has_room():
            raise DiskFullError("the disk is full", "free some space, or set a retention rule")
        return Receiving(self, self._temporary / secrets.token_hex(16))

    def store(self, content: bytes) -> Content:
        """Store content from memory; see :meth:`receive`."""
        with self.receive() as receiving:
            receiving.write(content)
            return receiving.keep()

    def path(self, sha256: str) -> Path:
        """Path of a stored file."""
        return self._blobs / _relative(sha256)

    @staticmethod
    def place(folder: Path, sha256: str) -> Path:
        """Path of a stored file in a data folder that is not open."""
        return folder / "blobs" / _relative(sha256)

    def exists(self, sha256: str) -> bool:
        """Whether a file is stored."""
        return self.path(sha256).exists()

    def read(self, sha256: str) -> bytes:
        """Content of a file.

        Raises:
            OSError: It is missing or cannot be read.
        """
        return self.path(sha256).read_bytes()

    def is_available(self) -> bool:
        """Whether the folder of the files is accessible; a share may be disconnected."""
        try:
            return any(self._blobs.iterdir())
        except OSError:
            return False

    def is_older(self, sha256: str, before: float) -> bool:
        """Whether a file exists that was stored before a time in seconds since 1970."""
        try:
            return self.path(sha256).stat().st_mtime < before
        except FileNotFoundError:
            return False

    def remove(self, sha256: str) -> None:
        """Delete a file if it exists."""
        self.path(sha256).unlink(missing_ok=True)

    def all(self) -> Iterator[str]:
        """SHA-256 of every stored file."""
        for folder in sorted(self._blobs.iterdir()):
            yield from sorted(path.name for path in folder.iterdir() if len(path.name) == 64)

    def damaged(self, digests: Iterable[str]) -> Iterator[str]:
        """The files that are missing or have changed content."""
        for sha256 in digests:
            try:
                with self.path(sha256).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                        continue
            except OSError:
                pass
            yield sha256

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Rename a complete temporary file to its digest, durably."""
        final = self.path(sha256)
        if not final.exists():
            if not final.parent.exists():
                final.parent.mkdir(exist_ok=True)
                sync_folder(self._blobs)
            temporary.replace(final)
        sync_folder(final.parent)


class Receiving:
    """A file that is being received; it is removed unless :meth:`keep` was called.

    Args:
        blobs: Store that receives the file.
        path: Temporary file with the bytes written so far.
    """

    def __init__(self, blobs: Blobs, path: Path) -> None:
        self._blobs, self.path = blobs, path
        self._digest = hashlib.sha256()
        self.size = 0
        self._file = path.open("xb", buffering=0)

    def write(self, part: bytes) -> None:
        """Append bytes.

        Raises:
            DiskFullError: The disk is full.
            OSError: It cannot be written.
        """
        with _disk():
            remaining = memoryview(part)
            while remaining:
                remaining = remaining[self._file.write(remaining) or 0 :]
        self._digest.update(part)
        self.size += len(part)

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes written so far."""
        return self._digest.hexdigest()

    def keep(self) -> Content:
        """Store the file durably under its digest.

        Raises:
            DiskFullError: The disk is full.
            OSError: It cannot be written.
        """
        sha256 = self.sha256
        with _disk():
            sync(self._file.fileno())
            self._file.close()
            self._blobs.adopt(self.path, sha256)
        return Content(sha256, self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _relative(sha256: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError(f"found {sha256!r}, expected a SHA-256")
    return f"{sha256[:2]}/{sha256}"


@contextmanager
def _disk() -> Iterator[None]:
    """Turn a full disk into :class:`DiskFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError("the disk is full", "free some space") from error
        raise
