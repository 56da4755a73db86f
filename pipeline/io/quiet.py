"""Keeps the warnings of Pillow, pydicom and highdicom about odd files inside this package."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = r"(PIL|pydicom|highdicom|pipeline\.io|pipeline\.report\.dicom)(\.|$)"


class _Gate:
    """Opens one ``catch_warnings`` for all threads that are inside at the same time.

    ``catch_warnings`` saves and restores a process-wide list: two threads that overlap could
    restore in the wrong order and leave the filter behind for good. So the first thread in
    installs the filter, and the last one out removes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=_LIBRARIES)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_GATE = _Gate()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings that name Pillow, pydicom, highdicom or their callers here as their place.

    They may quote header values, patient identifiers among them; what matters about a file is
    raised as an error or stands in its row. While any thread is inside, the filter holds for all
    threads, but for those modules only.
    """
    _GATE.enter()
    try:
        yield
    finally:
        _GATE.leave()
