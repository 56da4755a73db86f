"""One process at a time in one folder, by a lock that ends with its process.

The package filelock would wait for ever, or report another process, on network file systems that
have no locks (flock fails with ENOLCK or EOPNOTSUPP). Hospitals use such shares; here the run goes
ahead with a warning.
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
"""Where Windows locks a byte: what is locked there nobody else can read."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder for this process while the block runs.

    The operating system gives the lock back when the process ends, however it ends: a file that
    was left behind stops nobody.

    Raises:
        UsageError: Another process holds it.
        OSError: The folder cannot be written.
    """
    path = folder / NAME
    handle = _open(path)
    try:
        with suppress(OSError):  # a full disk has no room to say who it is
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_holder()).encode())
        yield
    finally:
        # Removed before it is given back, so that whoever waits for this very file looks again.
        if sys.platform != "win32":
            path.unlink(missing_ok=True)
        os.close(handle)
        if sys.platform == "win32":
            with suppress(OSError):
                path.unlink()


def _open(path: Path) -> int:
    """The locked file that lies at ``path``."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
        except OSError as error:
            os.close(handle)
            if error.errno not in _HELD:
                raise
            raise UsageError(
                f"{path.parent}: another fxpipe writes there{_told(path)}",
                "wait for it, or name another --output",
            ) from error
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # its holder removed it in between


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
        # Some network file systems have no locks; a hospital's share must still be of use.
        log.warning(
            "the output folder cannot be locked (%s): let only one fxpipe write there",
            error.strerror,
        )


def _holder() -> dict[str, object]:
    started = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _told(path: Path) -> str:
    """Who holds the lock, as far as it says."""
    try:
        holder = json.loads(path.read_bytes())
        return f" (process {holder['pid']} on {holder['host']}, since {holder['started']})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""
