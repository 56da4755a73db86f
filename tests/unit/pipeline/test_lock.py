"""The lock on an output folder: one process at a time, released in every case."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.lock import NAME, exclusive

if sys.platform == "win32":
    pytest.skip("flock", allow_module_level=True)
import fcntl

ROOT = Path(__file__).parents[3]
HOLD = (
    "import sys, time; from pathlib import Path; from pipeline.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1])): print('locked', flush=True); time.sleep(1000)"
)


def lock(folder: Path) -> None:
    with exclusive(folder):
        pass


def test_lock_file_exists_only_while_the_lock_is_held(tmp_path):
    with exclusive(tmp_path):
        holder = json.loads((tmp_path / NAME).read_bytes())
        assert holder["pid"] == os.getpid()
        assert {"host", "started"} < set(holder)
    assert list(tmp_path.iterdir()) == []


def test_second_lock_is_refused_and_names_the_holder(tmp_path):
    with exclusive(tmp_path):
        with pytest.raises(UsageError, match=rf"process {os.getpid()} on ") as caught:
            lock(tmp_path)
        assert (tmp_path / NAME).exists()
    assert "--output" in caught.value.hint
    lock(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not JSON", b"[]", b"\xff", b'{"pid": 1}'])
def test_second_lock_is_refused_without_information_on_the_holder(tmp_path, content):
    with exclusive(tmp_path):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(UsageError) as caught:
            lock(tmp_path)
    assert "(process" not in str(caught.value)


def test_lock_is_released_after_an_error(tmp_path):
    def fail() -> None:
        with exclusive(tmp_path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    lock(tmp_path)


def test_lock_of_a_killed_process_is_released(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError, match=rf"process {process.pid} on "):
            lock(tmp_path)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / NAME).exists()
    lock(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_lock_file_that_its_holder_removed_is_created_again(tmp_path, monkeypatch):
    """The holder removes the file between the opening and the locking of it."""
    calls, flock = 0, fcntl.flock

    def removing(handle: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        flock(handle, operation)
        if calls == 1:
            (tmp_path / NAME).unlink()

    monkeypatch.setattr(fcntl, "flock", removing)
    with exclusive(tmp_path):
        assert calls == 2
        with pytest.raises(UsageError):
            lock(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_causes_a_warning(tmp_path, monkeypatch, caplog, code):
    def unsupported(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with exclusive(tmp_path):
        assert os.strerror(code) in caplog.text
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        lock(tmp_path / "missing")
