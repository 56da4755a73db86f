"""The run's handle of one worker: a process, two pipes and a deadline."""

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
from . import messages

if sys.platform == "linux":
    import fcntl

# The worker must import this same package, wherever it is installed.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "import importlib; sys.exit(importlib.import_module(sys.argv[2]).main())"
)
_START_S = 120.0
_EXIT_S = 2.0
_SEND_S = 10.0
"""For a message without arrays, which fits into the pipe."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_PIPE_BYTES = 2**20


class Process:
    """One worker, started with the instance.

    Args:
        module: Name of the module whose ``main`` it runs.

    Attributes:
        busy: Whether it has a file that it has not reported as finished.

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
                # -P: modules in the working folder must not shadow the standard library.
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
            # Large enough for a whole picture. The system may refuse this to a user with many
            # pipes; the default size works too.
            with suppress(OSError):
                fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """Process ID."""
        return self._process.pid

    @property
    def exit(self) -> str:
        """How the process ended, for the log."""
        code = self._process.poll()
        if code is None:
            return "is running"
        if self._overdue:
            return "was killed at its time limit"
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit status {code}"

    def wait_ready(self) -> None:
        """Wait until the worker has finished its imports.

        Raises:
            StartError: It ends, takes too long, or belongs to another installation.
        """
        if self._ready:
            return
        try:
            message, _ = self.receive(_START_S)
            imported = message.get("package")
        except messages.MessageError as error:
            raise _cannot_start(f"a process that {self.ending(_START_S)}") from error
        if imported != package:
            self.kill()
            raise _cannot_start(f"the package {imported}, expected {package}")
        self._ready = True

    def send(
        self,
        message: messages.Message,
        arrays: Sequence[NDArray[Any]] = (),
        seconds: float = _SEND_S,
    ) -> None:
        """Send a message; if the worker has ended, the next :meth:`receive` raises.

        Args:
            message: See :func:`.messages.send`.
            arrays: See :func:`.messages.send`.
            seconds: Time limit for accepting them, after which the worker is killed.
        """
        with self._killed_after(seconds), suppress(messages.MessageError):
            messages.send(self._requests, message, arrays)

    def receive(
        self, seconds: float, most_bytes: int = 0
    ) -> tuple[messages.Message, messages.Arrays]:
        """Receive a message; the worker is killed if none arrives within ``seconds``.

        Raises:
            MessageError: The worker has ended, or its message is malformed.
        """
        with self._killed_after(seconds):
            return messages.receive(self._answers, most_bytes)

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        """Let :meth:`kill_overdue` kill the worker if the block takes longer."""
        with self._lock:
            self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            with self._lock:
                self._deadline = None

    def kill(self) -> None:
        """Kill the worker and its child processes immediately."""
        if not self.ended:
            if sys.platform == "win32":
                self._process.kill()
            else:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kill the worker and close its pipes; only for the thread that has reserved it."""
        self.kill()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()

    def kill_overdue(self) -> None:
        """Kill the worker if its deadline has passed."""
        with self._lock:
            if self._deadline is None or time.monotonic() < self._deadline:
                return
            self._overdue = True
        self.kill()

    def ending(self, seconds: float) -> str:
        """End the worker and describe what the file did to it, for an error message.

        Args:
            seconds: The time limit that applied.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)  # its pipes close shortly before it exits

        exited = self.ended
        self.close()
        code = self._process.returncode
        if self._overdue:
            return f"kept a reader busy for more than {seconds:g} s"
        if not exited:
            return "made its reader send a malformed message"
        if code < 0:
            return f"crashed its reader (signal {-code})"
        return f"ended its reader (exit status {code})"


def _cannot_start(reason: str) -> StartError:
    return StartError(
        f"a process that reads files cannot be started: found {reason}",
        "`--set isolate=false` reads them in this process",
    )
