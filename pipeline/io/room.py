"""A bound on what threads that read at the same time hold in memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..source import NamedBytes, Source

FILE_BYTES_A_PIXEL = 4
"""Of the content of files, for each pixel that may be decoded at the same time: two raw 16-bit
files for each picture, its own and one that waits."""


class Room:
    """Room for so many pixels, and for the files that they come from.

    A thread waits until its file has room, then until its picture has; who asks for more than
    there is in all waits until nobody else has any. It cannot deadlock as long as each thread
    decodes one file at a time: who has a picture's room never waits for more, gives it back
    and so lets in who waits, and who waits for a picture's room waits for nothing else. So a
    thread that keeps the pictures of two files at once has to use :data:`UNLIMITED`.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = _Share(pixels)
        self._bytes = _Share(FILE_BYTES_A_PIXEL * pixels)

    @contextmanager
    def for_file(self, source: Source) -> Iterator[None]:
        """Room for the content of a file; what has no size, as a missing file, needs none."""
        with self._bytes.taken(_size(source)):
            yield

    @contextmanager
    def for_picture(self, pixels: int) -> Iterator[None]:
        """Room for a picture, from its decoding until its consumer asks for the next one."""
        with self._pixels.taken(pixels):
            yield

    def hold(self, content_bytes: int) -> None:
        """Told that the content of a file is so large once it is inflated."""

    @property
    def memory(self) -> str:
        """How much memory a picture may take, for errors: "needs more than …"."""
        return "there is"


def _size(source: Source) -> int:
    if isinstance(source, NamedBytes):
        return len(source.content)
    try:
        return source.stat().st_size
    except OSError:
        return 0


class _Share:
    """A semaphore of which more than one can be taken, but never a part of what is asked for."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        amount = min(wanted, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


UNLIMITED = Room(sys.maxsize)
"""For who decodes one picture after the other, or bounds them in another way."""
