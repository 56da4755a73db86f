"""Where the time of a run goes, summed over all threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Sums seconds by the name of the work; work inside other work counts only for the inner.

    One clock may be used from any number of threads.

    Args:
        timer: Seconds that have passed for the calling thread: by the wall, or
            ``time.thread_time``, which stands still while the thread waits for a core.

    Attributes:
        timer: The same.
    """

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self.timer = timer
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._inside = threading.local()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by name, of all threads together."""
        with self._lock:
            return dict(self._seconds)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Count what the block takes, without what is measured inside of it."""
        outer, self._inside.inner_s = getattr(self._inside, "inner_s", 0.0), 0.0
        started = self.timer()
        try:
            yield
        finally:
            elapsed = self.timer() - started
            with self._lock:
                self._seconds[name] += elapsed - self._inside.inner_s
            self._inside.inner_s = outer + elapsed

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count what another clock, that of another process for one, has measured."""
        with self._lock:
            for name, value in seconds.items():
                self._seconds[name] += value
