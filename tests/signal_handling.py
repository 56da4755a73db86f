"""Signal handlers as in the foreground of a shell, regardless of how the tests are started."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | signal.Handlers

HANDLERS: dict[signal.Signals, Handler] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
"""Defaults. A shell starts background processes with SIGINT ignored, and children inherit that."""


@contextmanager
def as_in_the_foreground() -> Iterator[None]:
    """Inside the block, SIGINT and SIGTERM end this process and the processes that it starts."""
    previous = {number: signal.signal(number, handler) for number, handler in HANDLERS.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
