"""A ZIP archive as a stream."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

_PART_BYTES = 2**20


class _Sink:
    """Write buffer that cannot seek, like a socket."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> int:
        """Append."""
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        """Do nothing: all bytes are in memory."""

    def take(self) -> bytes:
        """All bytes written since the last call."""
        content = b"".join(self._parts)
        self._parts.clear()
        return content


class ZipStream:
    """Creates an archive incrementally, without compression, because pictures hardly compress."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._archive = zipfile.ZipFile(cast(IO[bytes], self._sink), "w", zipfile.ZIP_STORED)

    def add(self, name: str, content: Path | bytes) -> Iterator[bytes]:
        """Add a file.

        Args:
            name: In the archive.
            content: The file, or its content.

        Yields:
            Parts of the archive.

        Raises:
            OSError: The file cannot be read; the archive must not be completed then.
        """
        with ExitStack() as stack:
            opened = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
            file = stack.enter_context(opened)
            info = zipfile.ZipInfo(name)
            entry = stack.enter_context(self._archive.open(info, "w", force_zip64=True))
            while part := file.read(_PART_BYTES):
                entry.write(part)
                yield self._sink.take()
        yield self._sink.take()

    def close(self) -> bytes:
        """The final bytes of the archive."""
        self._archive.close()
        return self._sink.take()
