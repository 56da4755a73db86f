"""Output files that survive a crash: those that only grow, and those that appear whole.

A stream knows its size and the checksum of all its bytes, so that whoever wrote both down finds out
later whether a file still begins with what was written, and can cut it back to there.
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

_GO_ON = "see to the disk, then give the same command again: it goes on where it stopped"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a stream up to which it is whole.

    Attributes:
        size: Bytes before it.
        crc: CRC-32 of them.
        rows: Outcomes that they tell of.
    """

    size: int = 0
    crc: int = 0
    rows: int = 0


BEGINNING = Mark()


class Stream:
    """A UTF-8 text file that is appended to, with line ends as they are given.

    What is written waits for :meth:`flush` and then goes out in one piece.

    Args:
        path: The file.
        after: Where to go on; what lies behind it is cut off. At the beginning the file is made,
            or replaced when it exists.

    Raises:
        OutputError: The file cannot be written; likewise by every method.
    """

    def __init__(self, path: Path, after: Mark = BEGINNING) -> None:
        self.path = path
        self._size, self._crc = after.size, after.crc
        self._waiting: list[str] = []
        with told(path):
            self._file = path.open("r+b" if after.size else "wb", buffering=0)
            if after.size:
                self._file.truncate(after.size)
                self._file.seek(after.size)

    @property
    def mark(self) -> Mark:
        """Where the stream ends, as far as it was flushed."""
        return Mark(self._size, self._crc)

    def write(self, text: str) -> int:
        """Append a text at the next flush."""
        self._waiting.append(text)
        return len(text)

    def flush(self) -> None:
        """Hand everything that waits to the operating system."""
        content = "".join(self._waiting).encode("utf-8")
        self._waiting.clear()
        with told(self.path):
            write_all(self._file, content)
        self._size += len(content)
        self._crc = zlib.crc32(content, self._crc)

    def sync(self) -> None:
        """Wait until everything is on the disk, and see that the file is still in its place.

        On POSIX a file whose folder was removed takes all that is written, and is gone.
        """
        with told(self.path):
            sync(self._file.fileno())
            held, there = os.fstat(self._file.fileno()), self.path.stat()
        if (held.st_dev, held.st_ino) != (there.st_dev, there.st_ino):
            raise OutputError(
                f"{self.path}: found another file there, wanted the one that this run writes",
                "let nothing else write into the output folder, and begin anew with --restart",
            )

    def close(self, whole: bool) -> None:
        """Close the file.

        Args:
            whole: Whether it got to its end; what waits is then written, and put on the disk.
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
    while view:  # a nearly full disk accepts only a part
        view = view[file.write(view) :]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, it is there in full or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with told(path):
        write_atomic(path, content)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the operating system says into an error that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(f"{path}: cannot be written: {reason}", _GO_ON) from error
