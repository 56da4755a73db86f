"""Exclusive lock on a folder for one process, released when the process ends.

On network file systems without locks (flock fails with ENOLCK or EOPNOTSUPP) the package filelock
would wait forever or report another process. Hospitals use such shares, so here the run continues
with a warning.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from .errors import UsageError

log = logging.getLogger(__name__)

NAME = "fxpipe.lock"
_HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_FAR = 2**30
"""Offset of the byte to lock on Windows, where other processes cannot read locked bytes."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock a folder for this process while the block runs.

    The operating system releases the lock when the process ends, in any way. A stale lock file
    does not block later runs.

    Raises:
        UsageError: Another process holds the lock.
        OSError: The folder cannot be written.
    """
    path = folder / NAME
    handle = _open(path)
    try:
        with suppress(OSError):  # the disk may be full; the content is only informative
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_holder()).encode())
        yield
    finally:
        # Removed before it is unlocked, so that a process that then locks this file notices.
        if sys.platform != "win32":
            path.unlink(missing_ok=True)
        os.close(handle)
        if sys.platform == "win32":
            with suppress(OSError):
                path.unlink()


def is_held(folder: Path) -> bool:
    """Whether a process has locked a folder at present; changes nothing."""
    try:
        handle = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(handle)
    except OSError as error:
        return error.errno in _HELD
    finally:
        os.close(handle)  # releases it
    return False


def _open(path: Path) -> int:
    """Open and lock the file at ``path``."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
        except OSError as error:
            os.close(handle)
            if error.errno not in _HELD:
                raise
            raise UsageError(
                f"{path.parent}: another fxpipe process writes to this folder{_owner(path)}",
                "wait until it ends, or choose another --output",
            ) from error
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # its holder has removed it in the meantime


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise
        # Some network file systems have no locks; the run continues without one.
        log.warning(
            "cannot lock the output folder (%s): let only one fxpipe process write to it",
            error.strerror,
        )


def _holder() -> dict[str, object]:
    started = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _owner(path: Path) -> str:
    """Description of the lock holder, if the file contains it."""
    try:
        holder = json.loads(path.read_bytes())
        return f" (process {holder['pid']} on {holder['host']}, since {holder['started']})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""
