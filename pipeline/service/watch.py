"""Watched folders: files are received when they no longer change, each content once.

Folders are polled, because network shares send no events, and are never changed. Files are
identified by content: renamed and copied files are not received again, replaced files are. Contents
of deleted pictures are not received again.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from ..errors import UsageError
from ..io.own_output import result_names
from ..source import MAX_NAME_CHARS
from . import arrivals, engine_state, job_queue
from . import tables as t
from .arrivals import Arrival
from .blobs import Content, DiskFullError

if TYPE_CHECKING:
    from .application import Service

log = logging.getLogger(__name__)

SENDER = "watch"
LOOK_S = 2.0
"""Seconds between two checks of a file, and minimum between two passes over a folder."""
_BUSY_S = 5.0
_BATCH = 500
_PART = 1 << 20
_DEPTH = 64
"""Maximum depth of subfolders; each level needs an open handle."""
_UNFINISHED = re.compile(r".*\.(part|partial|filepart|crdownload|tmp)", re.IGNORECASE | re.DOTALL)
"""Names of files that programs rename after writing."""


@dataclass(frozen=True, slots=True)
class _FileState:
    """State of a file at one time."""

    path: Path
    key: str
    inode: int
    size: int
    changed_ns: int

    def is_same(self, status: os.stat_result) -> bool:
        """Whether a file is unchanged."""
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        return stat.S_ISREG(status.st_mode) and state == (self.inode, self.size, self.changed_ns)


class Watcher:
    """Receives the files of a folder, from its creation until :meth:`stop`.

    Args:
        service: Receives the files.
        folder: Watched folder, including its subfolders.

    Attributes:
        fault: Reason why files cannot be received at present, without file names; else None.

    Raises:
        UsageError: The folder is the data folder.
    """

    def __init__(self, service: Service, folder: Path) -> None:
        self.fault: str | None = None
        self._service, self._root = service, folder.resolve()
        self._data = service.folder.resolve()
        if self._root == self._data:
            raise UsageError(f"--watch {folder}: this is the data folder, expected another one")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fxpipe-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current file."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                fault = self._pass()
            except Exception as error:  # noqa: BLE001  (retried; the message may contain a file name)
                fault = f"a watched folder cannot be read ({type(error).__name__})"
            self._report(fault)
            self._stopping.wait(max(LOOK_S, time.monotonic() - started))

    def _report(self, fault: str | None) -> None:
        if fault is not None and fault != self.fault:
            log.warning("%s", fault)
        self.fault = fault

    def _pass(self) -> str | None:
        """Receive the new files of the folder; return a fault."""
        with os.scandir(self._root):
            pass  # raises if the share is disconnected
        unreadable = 0
        walk = _Walk(self._root, self._data)
        for looks in _batches(walk.files(), _BATCH):
            new = self._new(looks)
            if new and self._stopping.wait(LOOK_S):
                return self.fault
            for look in new:
                self._wait_for_room(look.size)
                if self._stopping.is_set():
                    return self.fault
                unreadable += not self._take(look)
        if unreadable + walk.unreadable:
            return f"{unreadable + walk.unreadable} entries of a watched folder cannot be read"
        return None

    def _new(self, looks: Sequence[_FileState]) -> list[_FileState]:
        """The files that were not received in their current state."""
        row, keys = t.watched.c, [look.key for look in looks]
        query = select(row.path, row.size, row.changed_ns).where(row.path.in_(keys))
        with self._service.database.read() as connection:
            taken = {(one.path, one.size, one.changed_ns) for one in connection.execute(query)}
        return [look for look in looks if (look.key, look.size, look.changed_ns) not in taken]

    def _wait_for_room(self, size: int) -> None:
        while not self._stopping.is_set():
            if not self._service.blobs.has_room(size):
                self._report("the disk is full: files of a watched folder are waiting")
            elif self._waiting() < self._service.config.most_waiting:
                return
            self._stopping.wait(_BUSY_S)

    def _waiting(self) -> int:
        with self._service.database.read() as connection:
            active = engine_state.active_engine(connection)
            return 0 if active is None else job_queue.waiting(connection, active.id)

    def _take(self, look: _FileState) -> bool:
        """Receive a file unless it has changed; False if it cannot be read."""
        if look.size > self._service.config.most_bytes:
            log.warning("a file of %d bytes in a watched folder is too large", look.size)
            self._service.database.write(lambda c: _remember(c, look, None))
            return True
        try:
            handle = os.open(look.path, os.O_RDONLY | _NO_WAIT)
        except FileNotFoundError:
            return True  # renamed or deleted in the meantime
        except OSError:
            return False
        try:
            self._receive(handle, look)
        except DiskFullError:
            return True  # received later, see _wait_for_room
        except OSError:
            return False
        finally:
            os.close(handle)
        return True

    def _receive(self, handle: int, look: _FileState) -> None:
        """Store and register the content, unless the file changes or was already received."""
        if not look.is_same(os.fstat(handle)) or _is_written(handle):
            return
        with self._service.blobs.receive() as receiving:
            while part := os.read(handle, _PART):
                receiving.write(part)
                if receiving.size > look.size or self._stopping.is_set():
                    return
            if receiving.size != look.size or not look.is_same(os.fstat(handle)):
                return
            sha256 = receiving.sha256
            with self._service.database.read() as connection:
                is_new = not _was_taken(connection, sha256)
            if is_new:
                self._register(look, receiving.keep())
            else:
                self._service.database.write(lambda c: _remember(c, look, sha256))

    def _register(self, look: _FileState, content: Content) -> None:
        name = _name(look.path.relative_to(self._root))
        arrival = Arrival(content, name, "watch", SENDER, content.sha256)

        def register(connection: Connection) -> None:
            if not _was_taken(connection, content.sha256):
                arrivals.receive(connection, arrival, self._service.blobs.exists)
            _remember(connection, look, content.sha256)

        self._service.database.write(register)
        self._service.wake()


class _Walk:
    """Iteration over the files of a folder, in constant memory.

    Args:
        root: The folder.
        exclude: A folder to skip.

    Attributes:
        unreadable: Number of folders and files that could not be read.
    """

    def __init__(self, root: Path, exclude: Path) -> None:
        self.unreadable = 0
        self._root, self._exclude = root, exclude

    def files(self) -> Iterator[_FileState]:
        """All regular files, except results of fxpipe, unfinished files and empty files.

        Links to folders, and links to files outside the watched folder, are skipped.
        """
        stack = [self._entries(self._root)]
        try:
            while stack:
                entry = next(stack[-1], None)
                if entry is None:
                    stack.pop()
                elif _is_folder(entry):
                    path = Path(entry.path)
                    if len(stack) > _DEPTH:
                        self.unreadable += 1
                    elif path != self._exclude:
                        stack.append(self._entries(path))
                elif (look := self._look(entry)) is not None:
                    yield look
        finally:
            for entries in stack:
                entries.close()  # type: ignore[attr-defined]

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        is_result = result_names(folder)
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    if is_result is None or not is_result(entry.name):
                        yield entry
        except OSError:
            self.unreadable += 1

    def _look(self, entry: os.DirEntry[str]) -> _FileState | None:
        if _UNFINISHED.fullmatch(entry.name):
            return None
        path = Path(entry.path)
        try:
            if entry.is_symlink() and not path.resolve().is_relative_to(self._root):
                return None
            status = path.stat()
        except FileNotFoundError:
            return None  # a broken link, or deleted in the meantime
        except (OSError, RuntimeError):
            self.unreadable += 1
            return None
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return None
        key = hashlib.sha256(os.fsencode(path)).hexdigest()
        return _FileState(path, key, status.st_ino, status.st_size, status.st_mtime_ns)


def _batches(looks: Iterator[_FileState], size: int) -> Iterator[list[_FileState]]:
    while batch := list(itertools.islice(looks, size)):
        yield batch


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _was_taken(connection: Connection, sha256: str) -> bool:
    query = select(t.watched.c.path).where(t.watched.c.sha256 == sha256).limit(1)
    return connection.scalar(query) is not None


def _remember(connection: Connection, look: _FileState, sha256: str | None) -> None:
    values = {"size": look.size, "changed_ns": look.changed_ns, "sha256": sha256}
    own = t.watched.c.path == look.key
    if not connection.execute(update(t.watched).where(own).values(**values)).rowcount:
        connection.execute(insert(t.watched).values(path=look.key, **values))


def _name(relative: Path) -> str:
    """Name of a picture: the path relative to the watched folder."""
    text = os.fsencode(relative.as_posix()).decode("utf-8", "replace")
    return "".join(char for char in text if char.isprintable())[-MAX_NAME_CHARS:] or "picture"


_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Open a file for reading; a pipe that has replaced it does not block."""


def _is_written(handle: int) -> bool:
    """Whether a local process has a file open for writing, if Linux can determine it.

    A read lease is then refused. Only the owner of the file and root can request a lease, and
    network shares do not support it: the result is False in these cases.
    """
    if sys.platform != "linux":
        return False
    import errno
    import fcntl
    import signal

    try:
        # If a process opens the file for writing, Linux sends a signal, which is ignored.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    with suppress(OSError):
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
