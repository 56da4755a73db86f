"""Figures of a service under load, and the resources that its processes use; Linux only."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from processes import family, pss_bytes

_FLAGS = ("avx2", "avx512_vnni", "avx512_bf16")
MOST_MB = 1000.0
"""Memory of all processes of a service."""


def print_machine() -> None:
    """Print what the figures depend on: processor, cores, other load."""
    words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    flags = ", ".join(f"{flag} {'yes' if flag in words else 'no'}" for flag in _FLAGS)
    load = os.getloadavg()[0]
    print(f"processor: {flags}; {len(os.sched_getaffinity(0))} cores, load {load:.1f}")  # noqa: T201


def print_figure(name: str, value: object, beside: str = "") -> None:
    """Print one figure, and its target or baseline."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    print(f"{name:<52} {text:>12}  {beside}".rstrip(), flush=True)  # noqa: T201


def p95(values: Sequence[float]) -> float:
    """The value that 95 % do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def p50(values: Sequence[float]) -> float:
    """The median."""
    return sorted(values)[len(values) // 2]


def memory_mb(pid: int) -> float:
    """Memory of a process and its descendants in MB; shared pages count once."""
    return sum(map(pss_bytes, family(pid))) / 1e6


def handles(pid: int) -> int:
    """Open file handles of a process and its descendants."""
    return _entries(pid, "fd")


def threads(pid: int) -> int:
    """Threads of a process and its descendants."""
    return _entries(pid, "task")


def _entries(pid: int, folder: str) -> int:
    count = 0
    for one in family(pid):
        try:
            count += len(os.listdir(f"/proc/{one}/{folder}"))  # noqa: PTH208
        except OSError:
            continue  # it has ended
    return count


def processor_s(pid: int) -> float:
    """Processor time of a process and its descendants that run, in seconds."""
    ticks = 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        except OSError:
            continue
        ticks += sum(map(int, fields.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


class PeakMemory:
    """Measures the peak memory of a process and its descendants during a block.

    Attributes:
        mb: The peak so far in MB.
    """

    def __init__(self, pid: int) -> None:
        self.mb = 0.0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            self.mb = max(self.mb, memory_mb(self._pid))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()


def timed_ms(started: float) -> float:
    """Milliseconds since a value of ``time.perf_counter``."""
    return (time.perf_counter() - started) * 1000.0
