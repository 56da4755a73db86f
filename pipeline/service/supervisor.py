"""Restarts the process of a service when it ends unexpectedly. Imports no large modules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

_FIRST_S, _MOST_S = 0.2, 30.0
_HEALTHY_S = 60.0
"""Seconds of running after which a process is restarted without delay."""


def supervise(words: Sequence[str], line: Callable[[str], None]) -> int:
    """Run ``fxpipe WORDS`` as a child process, and restart it until it exits normally.

    SIGTERM and SIGINT are passed on; the child also ends if this process is killed. All children
    have the same name (``FXPIPE_OWNER``), by which each one finds the jobs of its predecessor.

    Args:
        words: Arguments of the program.
        line: Called with each line that the child prints.

    Returns:
        Exit status of the child.
    """
    stopping = False
    child: subprocess.Popen[bytes] | None = None

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if child is not None:
            child.terminate()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    delay_s, crashed = _FIRST_S, False
    owner = os.urandom(8).hex()
    while True:
        started = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={
                **os.environ, "FXPIPE_SUPERVISED": "1", "FXPIPE_OWNER": owner,
                "FXPIPE_CRASHED": "1" if crashed else "",
            },
        )  # fmt: skip
        if stopping:
            child.terminate()
        assert child.stdout is not None  # noqa: S101
        for text in child.stdout:
            line(text.decode(errors="backslashreplace").rstrip("\n"))
        status = child.wait()
        if stopping or status in (0, 2, 3):
            return 0 if stopping else status
        crashed = status != -signal.SIGKILL
        if time.monotonic() - started > _HEALTHY_S:
            delay_s = _FIRST_S
        sys.stderr.write(f"the service ended (status {status}); restart in {delay_s:g} s\n")
        deadline = time.monotonic() + delay_s
        while not stopping and time.monotonic() < deadline:
            time.sleep(0.1)
        if stopping:
            return 0
        delay_s = min(2 * delay_s, _MOST_S)
