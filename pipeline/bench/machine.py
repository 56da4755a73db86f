"""Description of the machine: processor, GPU, versions, peak memory."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import version_of
from ..config import cores

_VECTORS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")
"""CPU flags, named as in Linux, that determine the speed of int8."""

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "torch", "numpy", "pillow", "pydicom")


def describe() -> dict[str, Any]:
    """JSON with processor, cores, instructions, GPU and system; null for unknown values."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "instructions": _instructions(),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str | None]:
    """Version of each package that affects speed; None if it is not installed."""
    return {package: version_of(package) for package in _PACKAGES}


def peak_memory() -> tuple[int | None, str]:
    """Peak resident memory of this process, in bytes.

    On Linux this adds the peaks of all running child processes, so it is an upper bound of their
    common peak.

    Returns:
        Bytes and an empty text, or None and the reason.
    """
    # Not from getrusage on Linux: a new process inherits the maximum of its parent.
    if own := _peak_of("self"):
        tasks = Path("/proc/self/task").glob("*/children")
        workers = {pid for task in tasks for pid in _text(str(task)).split()}
        return own + sum(map(_peak_of, workers)), ""
    if sys.platform == "win32":
        return None, "Python on Windows cannot read the peak memory of a process"
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, ""


def _peak_of(pid: str) -> int:
    """VmHWM of a process in bytes; 0 without /proc."""
    for line in _text(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _processor() -> str | None:
    name = _cpuinfo("model name")
    if name is None and platform.system() == "Darwin":
        name = _first_line("sysctl", "-n", "machdep.cpu.brand_string")
    return name or platform.processor() or None


def _instructions() -> list[str] | None:
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    return None if flags is None else [name for name in _VECTORS if name in flags.split()]


def _cpuinfo(key: str) -> str | None:
    """A value of the first processor that Linux lists."""
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _gpu() -> str | None:
    return _first_line("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")


def _first_line(program: str, *arguments: str) -> str | None:
    """First line that a program prints; None if it is missing or fails."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(done.stdout.splitlines()), None) if done.returncode == 0 else None


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
