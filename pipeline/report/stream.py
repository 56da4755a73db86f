"""Output files that survive a crash: appended files, and files that are replaced in one step.

A stream keeps its size and the checksum of all its bytes. The journal stores both, so that a later
process can check whether the file still begins with those bytes, and cut it back to them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from ..atomic import sync, write_atomic
from ..errors import OutputError

_HINT = (
    "free space or repair the disk, then give the same command again: it resumes where it stopped"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in a stream up to which it is complete.

    Attributes:
        size: Number of bytes before it.
        crc: CRC-32 of these bytes.
        rows: Number of outcomes in these bytes.
    """

    size: int = 0
    crc: int = 0
    rows: int = 0


BEGINNING = Mark()


class Stream:
    """A UTF-8 text file that is appended to; line ends are not converted.

    Written text is buffered until :meth:`flush`, which writes it in one piece.

    Args:
        path: The file.
        after: Position where to continue; the rest of the file is cut off. At the beginning the
            file is created, or an existing one is replaced.

    Raises:
        OutputError: The file cannot be written. Every method raises it too.
    """

    def __init__(self, path: Path, after: Mark = BEGINNING) -> None:
        self.path = path
        self._size, self._crc = after.size, after.crc
        self._buffer: list[str] = []
        with naming_file(path):
            self._file = path.open("r+b" if after.size else "wb", buffering=0)
            if after.size:
                self._file.truncate(after.size)
                self._file.seek(after.size)

    @property
    def mark(self) -> Mark:
        """The end of the flushed part."""
        return Mark(self._size, self._crc)

    def write(self, text: str) -> int:
        """Append a text at the next flush."""
        self._buffer.append(text)
        return len(text)

    def flush(self) -> None:
        """Pass all buffered text to the operating system."""
        content = "".join(self._buffer).encode("utf-8")
        self._buffer.clear()
        with naming_file(self.path):
            write_all(self._file, content)
        self._size += len(content)
        self._crc = zlib.crc32(content, self._crc)

    def sync(self) -> None:
        """Wait until everything is on the disk, and check that the path still leads to this file.

        On POSIX, writing to a file in a removed folder succeeds, but the data are lost.
        """
        with naming_file(self.path):
            sync(self._file.fileno())
            opened, present = os.fstat(self._file.fileno()), self.path.stat()
        if (opened.st_dev, opened.st_ino) != (present.st_dev, present.st_ino):
            raise OutputError(
                f"{self.path}: found another file, expected the one that this run writes",
                "make sure that nothing else writes into the output folder, and start over with "
                "--restart",
            )

    def close(self, whole: bool) -> None:
        """Close the file.

        Args:
            whole: Whether the output is complete; then the buffer is flushed and synced to disk.
        """
        try:
            if whole:
                self.flush()
                self.sync()
        finally:
            self._file.close()


def write_all(file: FileIO, content: bytes) -> None:
    """Write the whole content to an unbuffered file.

    Raises:
        OSError: The file cannot be written.
    """
    view = memoryview(content)
    while view:  # on a nearly full disk, write() may write only a part
        view = view[file.write(view) :]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: after a crash it is complete or unchanged.

    Raises:
        OutputError: It cannot be written.
    """
    with naming_file(path):
        write_atomic(path, content)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(f"{path}: cannot be written: {reason}", _HINT) from error
