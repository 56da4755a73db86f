"""Suppression of warnings of Pillow, pydicom and highdicom about unusual files."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = r"(PIL|pydicom|highdicom|pipeline\.io|pipeline\.report\.dicom)(\.|$)"


class _Gate:
    """Shares one ``catch_warnings`` between threads.

    ``catch_warnings`` saves and restores a process-wide list: two overlapping threads could restore
    in the wrong order and leave the filter installed. So the first thread to enter installs the
    filter, and the last one to leave removes it.
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
    """Ignore warnings raised in Pillow, pydicom, highdicom or their callers in this package.

    Such warnings may quote header values, including patient identifiers. Relevant problems of a
    file are raised as errors or reported in its row. While any thread is inside, the filter applies
    to all threads, but only for these modules.
    """
    _GATE.enter()
    try:
        yield
    finally:
        _GATE.leave()
