"""Handling of closed or full stdout and stderr.

If the reader of a pipe closes it (``fxpipe doctor | head -1``), further output is dropped, the
command continues, and its exit code does not change. Any other write error on stdout means a lost
result, so it ends the command like any other output that cannot be written.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from ..errors import OutputError


class _GuardedFile(io.FileIO):
    """A file descriptor; after its first error, all further output is dropped.

    Args:
        descriptor: It stays open.
        name: Name in error messages; empty to ignore errors.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._name = name
        self._failed = False

    def write(self, content: Any) -> int:
        """Write, or drop.

        Raises:
            OutputError: On the first error, except for a closed pipe.
        """
        size = memoryview(content).nbytes
        if self._failed:
            return size
        try:
            return super().write(content)
        except BrokenPipeError:
            self._failed = True
        except OSError as error:
            self._failed = True
            if self._name:
                reason = error.strerror or type(error).__name__
                raise OutputError(f"{self._name}: cannot be written: {reason}") from error
        return size


@contextmanager
def handle_stream_errors() -> Iterator[None]:
    """While the block runs, write errors of stdout or stderr do not cause a traceback.

    Raises:
        OutputError: Stdout cannot be written, or cannot be flushed at the end.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err = _guarded(sys.stdout, "stdout"), _guarded(sys.stderr, "")
    try:
        yield
        _flush(out)
    except SystemExit:
        _flush(out)
        raise
    finally:
        for stream in (out, err):
            with suppress(OutputError):  # already reported
                _flush(stream)
        sys.stdout, sys.stderr = before


def _flush(stream: TextIO | None) -> None:
    if stream is not None:  # None if it was closed before the start
        stream.flush()


def _guarded(stream: TextIO, name: str) -> TextIO:
    """The stream with its file descriptor guarded; a stream without one is returned unchanged."""
    buffer = getattr(stream, "buffer", None)
    # A Windows console and the replacements in tests have no descriptor of this type.
    if not isinstance(stream, io.TextIOWrapper) or type(_raw(buffer)) is not io.FileIO:
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_GuardedFile(stream.fileno(), name)),
        encoding=stream.encoding,
        errors=stream.errors,
        # With PYTHONUNBUFFERED, the text layer has no buffer; the one below would keep the lines.
        line_buffering=stream.line_buffering or stream.write_through,
        write_through=stream.write_through,
    )


def _raw(buffer: Any) -> Any:
    return getattr(buffer, "raw", buffer)
