"""From files to arrays that networks take, each file in a process that may die of it.

A reader turns one file into what a run keeps of its pictures. :mod:`.here` does it in this
process, :mod:`.isolated` has workers for it (:mod:`.worker`), to whom it talks over pipes
(:mod:`.wire`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..config import RunConfig
from ..io import Room
from .here import Here
from .isolated import Isolated
from .prepared import Item, Prepared, Reader, Wanted

__all__ = ["Item", "Prepared", "Reader", "Wanted", "open_reader"]


@contextmanager
def open_reader(config: RunConfig) -> Iterator[Reader]:
    """The reader that a run is configured for; its first worker is started at once."""
    room = Room(config.megapixels * 10**6)
    if not config.isolate:
        yield Here(room)
        return
    reader = Isolated(room, config.timeout_per_file_s)
    try:
        yield reader
    finally:
        reader.stop()
