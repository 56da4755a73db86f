"""Runs a command and measures the memory of all its processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def run_measured(command: Sequence[object], **options: object) -> tuple[int, int, list[int]]:
    """Run a command until it ends; Linux only.

    Args:
        command: Program and arguments.
        options: For ``subprocess.Popen``.

    Returns:
        Exit status; the peak memory of all its processes together in bytes, where shared pages
        count once; and the ids of all observed processes.
    """
    process = subprocess.Popen([str(word) for word in command], **options)  # type: ignore[call-overload]
    peak, seen = 0, {process.pid}
    while process.poll() is None:
        members = family(process.pid)
        seen.update(members)
        peak = max(peak, sum(map(pss_bytes, members)))
        time.sleep(0.02)
    return process.returncode, peak, sorted(seen)


def family(pid: int) -> list[int]:
    """A process and all its descendants; Linux only."""
    pids = [pid]
    for parent in pids:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids += map(int, task.read_text().split())
            except OSError:
                continue
    return pids


def pss_bytes(pid: int) -> int:
    """Memory of a process, with its share of shared pages; 0 if it has ended. Linux only."""
    try:
        words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    except OSError:
        return 0
    return int(words[words.index("Pss:") + 1]) * 1024 if "Pss:" in words else 0
