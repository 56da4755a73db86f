"""A command with the memory of all its processes together."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def watched(command: Sequence[object], **options: object) -> tuple[int, int, list[int]]:
    """Run a command to its end, on Linux.

    Returns:
        Exit status; the peak of the sum of its processes' memory in bytes, where pages that
        several share count once; and the ids of all processes that were seen.
    """
    process = subprocess.Popen([str(word) for word in command], **options)  # type: ignore[call-overload]
    peak, seen = 0, {process.pid}
    while process.poll() is None:
        family = _family(process.pid)
        seen.update(family)
        peak = max(peak, sum(map(_bytes, family)))
        time.sleep(0.02)
    return process.returncode, peak, sorted(seen)


def _family(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def _bytes(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    except OSError:
        return 0
    return int(words[words.index("Pss:") + 1]) * 1024 if "Pss:" in words else 0
