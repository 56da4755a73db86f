"""Opens the reader that the configuration selects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..config import RunConfig
from ..io import MemoryBudget
from .in_process import InProcessReader
from .prepared_picture import Reader
from .worker_pool import IsolatedReader


@contextmanager
def open_reader(config: RunConfig) -> Iterator[Reader]:
    """Open the reader that ``config`` selects; its first worker starts immediately."""
    room = MemoryBudget(config.megapixels * 10**6)
    if not config.isolate:
        yield InProcessReader(room)
        return
    reader = IsolatedReader(room, config.timeout_per_file_s)
    try:
        yield reader
    finally:
        reader.stop()
