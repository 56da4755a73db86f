"""A PostgreSQL cluster for tests, with a new database for each of them.

Without PostgreSQL a test is skipped, and says so; in CI, where it is installed, it fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

_FOLDERS = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt")
_START_S = 60.0


def program(name: str) -> str:
    """The path of a program of PostgreSQL, also where it is not on the PATH."""
    paths = [path for folder in _FOLDERS for path in Path(folder).glob(f"*/bin/{name}")]
    path = shutil.which(name) or (str(max(paths)) if paths else None)
    if path is None:
        message = f"{name} is not installed (Debian: postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


class Cluster:
    """A running server that listens on a socket in a folder only.

    Args:
        folder: Folder of the socket.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def new_database(self) -> str:
        """URL of a new, empty database."""
        self._count += 1
        name = f"test_{self._count}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def drop(self, url: str) -> None:
        """Delete a database that :meth:`new_database` made."""
        name = url.partition("@/")[2].partition("?")[0]
        with self._connect("postgres") as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        with suppress(psycopg.OperationalError), self._connect("postgres"):
            return True
        return False

    def _connect(self, name: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            dbname=name, user="postgres", host=str(self._folder), autocommit=True
        )


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a server, and stop it at the end of the block.

    PostgreSQL refuses to run as root, so root starts it as the user ``postgres``.
    """
    user = "postgres" if os.geteuid() == 0 else None
    initdb, postgres = program("initdb"), program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="fxpipe-pg-"))
    if user is not None:
        shutil.chown(folder, user)
    try:
        words = [initdb, "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N"]
        _run([*words, "-E", "UTF8", "--locale=C"], user, folder)
        # Not durable: the tests stop processes of fxpipe, not the machine.
        options = ["fsync=off", "listen_addresses=", f"unix_socket_directories={folder}"]
        server = subprocess.Popen(
            [postgres, "-D", str(folder / "data"), *(w for o in options for w in ("-c", o))],
            user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            running = Cluster(folder)
            deadline = time.monotonic() + _START_S
            while not running.is_ready():
                assert server.poll() is None, "PostgreSQL ended at its start"
                assert time.monotonic() < deadline, "PostgreSQL does not start"
                time.sleep(0.05)
            yield running
        finally:
            server.send_signal(signal.SIGINT)  # ends connections
            with suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(words: Sequence[str], user: str | None, folder: Path) -> None:
    done = subprocess.run(words, user=user, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
