"""The reader that a run is configured for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..config import RunConfig
from ..io import Room
from .here import Here
from .isolated import Isolated
from .prepared import Reader


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
