"""What becomes of a signal: as a shell in the foreground leaves it, wherever tests are started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

WANTED = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""A shell starts what goes to the background with SIGINT ignored, and children inherit that."""


@contextmanager
def as_in_the_foreground() -> Iterator[None]:
    """While the block runs, this process and those that it starts end on SIGINT and SIGTERM."""
    before = {number: signal.signal(number, wanted) for number, wanted in WANTED.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
