"""Time measurement by part of a run, summed over all threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Sums seconds by name of the work; nested work counts only for the inner name.

    One clock may be used from any number of threads.

    Args:
        timer: Time source in seconds: wall time, or ``time.thread_time``, which excludes the time
            that a thread waits for a core.

    Attributes:
        timer: The time source.
    """

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self.timer = timer
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._inside = threading.local()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by name, summed over all threads."""
        with self._lock:
            return dict(self._seconds)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure the block, without nested measurements."""
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
        """Add the seconds of another clock, for example of another process."""
        with self._lock:
            for name, value in seconds.items():
                self._seconds[name] += value
