"""Reads one file after the other for a run, in a process that may crash, hang or be killed.

Started by :mod:`.isolated`. Requests come in on stdin and pictures leave on stdout, as messages of
:mod:`.wire`; the end of stdin is the end of the worker. Before it decodes a picture it asks for
room, and the answer may take as long as it likes.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .. import __file__ as package
from ..clock import Clock
from ..io import Room
from ..io.limits import MAX_FILE_BYTES
from ..source import Source, bytes_in_memory
from . import wire
from .allowance import Allowance
from .here import prepare

_GRACE_S = 30
"""Beyond the time for a file, after which the worker ends itself: the run may be gone by then."""


class _Asked(Room):
    """Room that the run gives, for all its workers."""

    def __init__(self, worker: _Worker) -> None:
        super().__init__(sys.maxsize)
        self._worker = worker

    @contextmanager
    def for_picture(self, pixels: int) -> Iterator[None]:
        """See :class:`pipeline.io.Room`; who asks for the next one has given back the last."""
        self._worker.ask(pixels)
        yield

    def hold(self, content_bytes: int) -> None:
        """See :class:`pipeline.io.Room`."""
        self._worker.hold(content_bytes)

    @property
    def memory(self) -> str:
        """See :class:`pipeline.io.Room`."""
        return f"the {self._worker.allowance.more / 1e6:.0f} MB that it is allowed"


class _Worker:
    """One worker.

    Args:
        requests, answers: From and to the run.
    """

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._file_bytes = 0
        self._most_s = 0
        self.allowance = Allowance()

    def work(self) -> None:
        """Until the run has no more to ask."""
        wire.send(self._answers, {"kind": "ready", "package": package})
        last = False
        while not last:
            # The memory for content that comes with the request is allowed before it is received.
            message, arrays = wire.receive(self._requests, MAX_FILE_BYTES, self.hold)
            last = self._read(message, arrays)

    def ask(self, pixels: int) -> None:
        """Wait until a picture may be decoded."""
        _alarm(0)
        wire.send(self._answers, {"kind": "room", "pixels": pixels})
        wire.receive(self._requests)
        self.allowance.allow(self._file_bytes, pixels)
        _alarm(self._most_s)

    def hold(self, content_bytes: int) -> None:
        """Memory for content that may have grown."""
        self._file_bytes = content_bytes
        self.allowance.allow(content_bytes)

    def _read(self, message: wire.Message, arrays: wire.Arrays) -> bool:
        """Answer one request; whether it was the last one."""
        self._most_s = math.ceil(message["timeout_s"]) + _GRACE_S
        source, wanted = wire.requested(message, arrays)
        arrays.clear()  # a copy of the content is kept no longer than it is needed
        clock = Clock(time.thread_time if message["cpu"] else time.perf_counter)
        _alarm(self._most_s)
        try:
            self._allow_content(source)
            for item in prepare(source, wanted, clock, _Asked(self), self._found):
                wire.send(self._answers, *wire.packed(item))
                del item
        # A broken wire ends the worker; all else is a fault of the program that must not cost
        # more than this row. Only the type is told: the text may quote patient identifiers.
        except wire.WireError:
            raise
        except Exception as error:  # noqa: BLE001
            wire.send(self._answers, {"kind": "fault", "error": type(error).__name__})
        _alarm(0)
        del source
        last = self.allowance.swollen
        wire.send(self._answers, {"kind": "end", "seconds": clock.seconds, "last": last})
        return last

    def _allow_content(self, source: Source) -> None:
        """Memory for reading a file, and for the content of one."""
        size = bytes_in_memory(source)
        if isinstance(source, Path):
            with suppress(OSError, ValueError):
                size = min(source.stat().st_size, MAX_FILE_BYTES)
        self.hold(size)

    def _found(self, sha256: str, size: int) -> None:
        """Tell the run of the content, before a decoder looks at it."""
        self.hold(size)
        wire.send(self._answers, {"kind": "read", "sha256": sha256})


def _alarm(seconds: int) -> None:
    """End this process after so many seconds, also in the middle of a decoder; 0 for never."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _channel() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout, out of reach of decoders that print; stderr, which may tell names, shut."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return requests, answers


def main() -> int:
    """Work until stdin ends."""
    if sys.platform != "win32":
        import resource

        # A dump of the memory would hold pictures of patients.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _Worker(*_channel()).work()
    except wire.WireError:
        return 1
    return 0
