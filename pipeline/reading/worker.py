"""The worker process, which reads files for a run and may crash, hang or be killed.

:mod:`.worker_pool` starts it. It receives requests on stdin and sends pictures on stdout, as
:mod:`.messages`; it ends at the end of stdin. Before it decodes a picture it requests room, and
waits for the answer without a time limit.
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
from ..io import MemoryBudget
from ..io.limits import MAX_FILE_BYTES
from ..source import Source, bytes_in_memory
from ..timing import Clock
from . import messages
from .in_process import prepare
from .memory_limit import Allowance

_GRACE_S = 30
"""Seconds after the time limit of a file at which the worker exits, in case the run has ended."""


class _RunRoom(MemoryBudget):
    """Memory budget that the run grants; all its workers share it."""

    def __init__(self, worker: _Worker) -> None:
        super().__init__(sys.maxsize)
        self._worker = worker

    @contextmanager
    def for_picture(self, pixels: int) -> Iterator[None]:
        """See :class:`pipeline.io.MemoryBudget`; a new request releases the previous room."""
        self._worker.request_room(pixels)
        yield

    def hold(self, content_bytes: int) -> None:
        """See :class:`pipeline.io.MemoryBudget`."""
        self._worker.hold(content_bytes)

    @property
    def memory(self) -> str:
        """See :class:`pipeline.io.MemoryBudget`."""
        return f"the {self._worker.allowance.extra / 1e6:.0f} MB that it is allowed"


class _Worker:
    """One worker.

    Args:
        requests: Input stream from the run.
        answers: Output stream to the run.
    """

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._file_bytes = 0
        self._limit_s = 0
        self.allowance = Allowance()

    def work(self) -> None:
        """Answer requests until the worker should be replaced."""
        messages.send(self._answers, {"kind": "ready", "package": package})
        is_last = False
        while not is_last:
            # The memory for content that comes with the request is allowed before it is received.
            message, arrays = messages.receive(self._requests, MAX_FILE_BYTES, self.hold)
            is_last = self._read(message, arrays)

    def request_room(self, pixels: int) -> None:
        """Wait until a picture may be decoded."""
        _alarm(0)
        messages.send(self._answers, {"kind": "room", "pixels": pixels})
        messages.receive(self._requests)
        self.allowance.allow(self._file_bytes, pixels)
        _alarm(self._limit_s)

    def hold(self, content_bytes: int) -> None:
        """Allow memory for content of this size."""
        self._file_bytes = content_bytes
        self.allowance.allow(content_bytes)

    def _read(self, message: messages.Message, arrays: messages.Arrays) -> bool:
        """Answer one request; returns whether it was the last one."""
        self._limit_s = math.ceil(message["timeout_s"]) + _GRACE_S
        source, options = messages.requested(message, arrays)
        arrays.clear()  # release this copy of the content
        clock = Clock(time.thread_time if message["cpu"] else time.perf_counter)
        _alarm(self._limit_s)
        try:
            self._allow_content(source)
            for item in prepare(source, options, clock, _RunRoom(self), self._on_content):
                messages.send(self._answers, *messages.packed(item))
                del item
        # A broken pipe ends the worker. Any other exception is a bug that must affect only this
        # row. Only its type is sent: the text may contain patient identifiers.
        except messages.MessageError:
            raise
        except Exception as error:  # noqa: BLE001
            messages.send(self._answers, {"kind": "fault", "error": type(error).__name__})
        _alarm(0)
        del source
        is_last = self.allowance.grown
        messages.send(self._answers, {"kind": "end", "seconds": clock.seconds, "last": is_last})
        return is_last

    def _allow_content(self, source: Source) -> None:
        """Allow memory for the content of a source."""
        size = bytes_in_memory(source)
        if isinstance(source, Path):
            with suppress(OSError, ValueError):
                size = min(source.stat().st_size, MAX_FILE_BYTES)
        self.hold(size)

    def _on_content(self, sha256: str, size: int) -> None:
        """Report the content's digest to the run before decoding starts."""
        self.hold(size)
        messages.send(self._answers, {"kind": "read", "sha256": sha256})


def _alarm(seconds: int) -> None:
    """Kill this process after ``seconds``, even inside a decoder; 0 cancels the alarm."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _channel() -> tuple[BinaryIO, BinaryIO]:
    """Duplicate stdin and stdout, then redirect all standard streams to the null device.

    So output of decoders cannot corrupt messages, and stderr cannot reveal patient names.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return requests, answers


def main() -> int:
    """Run the worker; returns its exit status."""
    if sys.platform != "win32":
        import resource

        # A core dump would contain pictures of patients.

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _Worker(*_channel()).work()
    except messages.MessageError:
        return 1
    return 0
