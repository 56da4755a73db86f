"""One worker as the run sees it: a process, two pipes, and how long somebody has waited for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

from numpy.typing import NDArray

from .. import __file__ as package
from ..errors import StartError
from . import wire

if sys.platform == "linux":
    import fcntl

# The worker must be this very package, wherever it was found.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "import importlib; sys.exit(importlib.import_module(sys.argv[2]).main())"
)
_START_S = 120.0
_DYING_S = 2.0
_SEND_S = 10.0
"""For a message without arrays, which fits into the pipe."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_PIPE_BYTES = 2**20


class Process:
    """One worker, started with the instance.

    Args:
        module: Whose ``main`` it runs.

    Attributes:
        busy: Whether it has a file and has not said that it is done with it.

    Raises:
        StartError: It cannot be started.
    """

    def __init__(self, module: str) -> None:
        self.busy = False
        self._ready = self._overdue = False
        self._deadline: float | None = None
        self._lock = threading.Lock()
        paths = [path or os.curdir for path in sys.path]
        options: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
        try:
            self._process = subprocess.Popen(
                # -P: no module of the working folder may stand before the standard library's.
                [sys.executable, "-P", "-c", _BOOT, json.dumps(paths), module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_ONE_THREAD},
                **options,
            )
        except OSError as error:
            raise _cannot_start(error.strerror or type(error).__name__) from error
        self._requests = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)
        if sys.platform == "linux":
            # A picture in one go. Who has many pipes may be refused, and does without.
            with suppress(OSError):
                fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def ended(self) -> bool:
        """Whether it is no more."""
        return self._process.poll() is not None

    def wait_ready(self) -> None:
        """Wait until it has imported what it needs.

        Raises:
            StartError: It ends or takes too long, or is of another installation.
        """
        if self._ready:
            return
        try:
            message, _ = self.receive(_START_S)
            found = message.get("package")
        except wire.WireError as error:
            raise _cannot_start(f"a process that {self.ending(_START_S)}") from error
        if found != package:
            self.kill()
            raise _cannot_start(f"the package {found}, expected {package}")
        self._ready = True

    def send(
        self, message: wire.Message, arrays: Sequence[NDArray[Any]] = (), seconds: float = _SEND_S
    ) -> None:
        """Send a message; if it has ended, the next :meth:`receive` raises.

        Args:
            message: See :func:`.wire.send`.
            arrays: Likewise.
            seconds: How long it may take to accept them; then it is killed.
        """
        with self._killed_after(seconds), suppress(wire.WireError):
            wire.send(self._requests, message, arrays)

    def receive(self, seconds: float, most_bytes: int = 0) -> tuple[wire.Message, wire.Arrays]:
        """Listen, for so many seconds; then it is killed.

        Raises:
            WireError: It has ended, or says what it may not say.
        """
        with self._killed_after(seconds):
            return wire.receive(self._answers, most_bytes)

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        """Let :meth:`kill_overdue` end it if the block takes longer."""
        with self._lock:
            self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            with self._lock:
                self._deadline = None

    def kill(self) -> None:
        """End it, and what it has started, at once."""
        if not self.ended:
            if sys.platform == "win32":
                self._process.kill()
            else:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """End it, with its pipes; only for who has it."""
        self.kill()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()

    def kill_overdue(self) -> None:
        """End it if somebody has waited too long for it."""
        with self._lock:
            if self._deadline is None or time.monotonic() < self._deadline:
                return
            self._overdue = True
        self.kill()

    def ending(self, seconds: float) -> str:
        """What happened to it, in words for the file that it had; it has ended, or is ended now.

        Args:
            seconds: How long it was waited for.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)  # its pipes close a moment before it is gone
        by_itself = self.ended
        self.close()
        code = self._process.returncode
        if self._overdue:
            return f"kept a reader busy for more than {seconds:g} s"
        if not by_itself:
            return "made its reader talk nonsense"
        if code < 0:
            return f"crashed its reader (signal {-code})"
        return f"ended its reader (exit status {code})"


def _cannot_start(found: str) -> StartError:
    return StartError(
        f"a process that reads files cannot be started: found {found}",
        "`--set isolate=false` reads them in this process",
    )
