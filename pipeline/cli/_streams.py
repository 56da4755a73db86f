"""Stdout and stderr that may end before fxpipe does: a pipe that nobody reads, a full disk.

Whoever closes a pipe has read enough (``fxpipe doctor | head -1``): what else is printed is
dropped, the command goes on, and its exit code is that of its work. A stdout that takes no more
is a result that is lost, so it ends the command like any other output that cannot be written.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from ..errors import OutputError


class _Ending(io.FileIO):
    """A file descriptor; after its first error all that is written to it is dropped.

    Args:
        descriptor: It stays open.
        name: As an error tells it; empty for one whose errors nobody can be told of.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._name = name
        self._ended = False

    def write(self, content: Any) -> int:
        """Write, or drop.

        Raises:
            OutputError: This is the first error, and no pipe that was closed.
        """
        size = memoryview(content).nbytes
        if self._ended:
            return size
        try:
            return super().write(content)
        except BrokenPipeError:
            self._ended = True
        except OSError as error:
            self._ended = True
            if self._name:
                reason = error.strerror or type(error).__name__
                raise OutputError(f"{self._name}: cannot be written: {reason}") from error
        return size


@contextmanager
def patient() -> Iterator[None]:
    """While the block runs, no end of stdout or stderr ends in a traceback.

    Raises:
        OutputError: Stdout cannot be written; also for what was still waiting at the end.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err = _ending(sys.stdout, "stdout"), _ending(sys.stderr, "")
    try:
        yield
        _flush(out)
    except SystemExit:
        _flush(out)
        raise
    finally:
        for stream in (out, err):
            with suppress(OutputError):  # told already
                _flush(stream)
        sys.stdout, sys.stderr = before


def _flush(stream: TextIO | None) -> None:
    if stream is not None:  # as where it was closed before the start
        stream.flush()


def _ending(stream: TextIO, name: str) -> TextIO:
    """The stream, if it writes to a file descriptor of its own; any other as it is."""
    buffer = getattr(stream, "buffer", None)
    # A console of Windows is none, and neither is what a test puts there.
    if not isinstance(stream, io.TextIOWrapper) or type(_raw(buffer)) is not io.FileIO:
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Ending(stream.fileno(), name)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _raw(buffer: Any) -> Any:
    return getattr(buffer, "raw", buffer)
