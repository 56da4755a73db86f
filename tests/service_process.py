"""A service in a separate process, for tests that kill it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from processes import family

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def new_token(data: Path, role: str, *words: str) -> str:
    """A bearer token from the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "token", "create", "--data", str(data),
         "--role", role, *words],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


def environment() -> dict[str, str]:
    """Environment in which this source tree is imported."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class ServiceProcess:
    """``fxpipe serve`` on a free port.

    Args:
        data: The data folder.
        weights: Weights folder.
        words: Further options.

    Attributes:
        port: TCP port of HTTP.
        output: What the process has printed.
    """

    def __init__(self, data: Path, weights: Path, *words: str) -> None:
        self.data, self.weights, self.words = data, weights, words
        self.port = free_port()
        self.output = data.with_name(data.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base of all addresses."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the supervisor runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it without waiting."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "serve", "--data", str(self.data),
                 "--port", str(self.port), "--no-browser", "--weights", str(self.weights),
                 "--set", "run.device=cpu", *self.words],
                env=environment(), stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return self

    def wait_ready(self, seconds: float = 120.0) -> Self:
        """Wait until it accepts requests."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self.output.read_text()
            try:
                if httpx.get(f"{self.url}/livez", timeout=5.0).status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(self.output.read_text())

    def kill(self) -> None:
        """Kill the supervisor and the service at once, as a power failure would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def kill_service(self) -> bool:
        """Kill the service but not its supervisor, which restarts it; Linux only.

        Returns:
            Whether the service was running; it is not while the supervisor starts or pauses.

        Raises:
            AssertionError: The supervisor does not collect the killed process.
        """
        service = next(iter(family(self.pid)[1:]), None)
        if service is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(service, signal.SIGKILL)
        deadline = time.monotonic() + 60.0
        while Path(f"/proc/{service}").exists():
            assert time.monotonic() < deadline, "the supervisor does not collect the killed process"
            time.sleep(0.01)
        return True

    def stop(self) -> int:
        """Stop it as systemd does; return its exit status."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(60.0)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self.start().wait_ready()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
