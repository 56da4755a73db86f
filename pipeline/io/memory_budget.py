"""Limit on the memory of threads that read files at the same time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..source import NamedBytes, Source

FILE_BYTES_A_PIXEL = 4
"""Bytes of file content per pixel in decoding: two raw 16-bit files per picture, its own file and
one that waits."""


class MemoryBudget:
    """Shared memory budget for a number of pixels, and for the files that contain them.

    A thread waits for the budget of its file, then for that of its picture. A request above the
    whole budget waits until no other thread holds any of it. This cannot deadlock as long as each
    thread decodes one file at a time: a thread that holds the budget of a picture waits for nothing
    before it releases it. A thread that keeps the pictures of two files at once must use
    :data:`UNLIMITED`.

    Args:
        pixels: Size of the budget.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = _Share(pixels)
        self._bytes = _Share(FILE_BYTES_A_PIXEL * pixels)

    @contextmanager
    def for_file(self, source: Source) -> Iterator[None]:
        """Reserve memory for the content of a file; none if its size cannot be read."""
        with self._bytes.acquired(_size(source)):
            yield

    @contextmanager
    def for_picture(self, pixels: int) -> Iterator[None]:
        """Reserve memory for a picture, from its decoding until the next one is requested."""
        with self._pixels.acquired(pixels):
            yield

    def hold(self, content_bytes: int) -> None:
        """Report the size of inflated content; overridden in worker processes."""

    @property
    def memory(self) -> str:
        """Available memory, for errors: "needs more memory than …"."""
        return "available"


def _size(source: Source) -> int:
    if isinstance(source, NamedBytes):
        return len(source.content)
    try:
        return source.stat().st_size
    except OSError:
        return 0


class _Share:
    """A semaphore from which a thread acquires several units at once."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._condition = threading.Condition()

    @contextmanager
    def acquired(self, requested: int) -> Iterator[None]:
        amount = min(requested, self._size)
        with self._condition:
            self._condition.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._condition:
                self._free += amount
                self._condition.notify_all()


UNLIMITED = MemoryBudget(sys.maxsize)
"""For callers that decode one picture at a time, or limit memory in another way."""
