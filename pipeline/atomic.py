"""Files that are replaced in one step: whatever happens, the old one is there or the new one."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file next to its final place; when the block ends well, it moves there.

    File and folder are then on the disk, so that a power failure leaves no empty or older file.
    When the block raises, ``path`` stays as it was and the new file is removed.

    Args:
        path: The file, there already or not. Its folder exists.

    Yields:
        Where to write; closed again when the block ends.

    Raises:
        OSError: The file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("r+b") as file:
            sync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file; see :func:`replacing`.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def sync(handle: int) -> None:
    """Put an open file or folder on the disk, where its file system knows how to.

    Raises:
        OSError: The disk cannot take it.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; does nothing on Windows, which opens no folders."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)
