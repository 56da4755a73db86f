"""Files that are replaced in one step, after their content was written to disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline import atomic
from pipeline.atomic import replacing, write_atomic

PROC = Path("/proc/self/fd").exists()


def test_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with replacing(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_error_keeps_the_old_file_and_removes_the_partial_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def broken() -> None:
        with replacing(path) as partial:
            partial.write_bytes(b"incomplete")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_error_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "missing/a", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", b"x")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot open folders")
def test_content_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    path = tmp_path / "a"
    steps: list[tuple[bool, str]] = []

    def record(handle: int) -> None:
        target = Path(f"/proc/self/fd/{handle}").readlink() if PROC else path
        steps.append((path.exists(), target.name))

    monkeypatch.setattr(atomic, "sync", record)
    write_atomic(path, b"x")
    assert [exists for exists, _ in steps] == [False, True]
    if PROC:
        assert [name for _, name in steps] == ["a.partial", tmp_path.name]


@pytest.mark.parametrize(("code", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_sync_error_is_raised_unless_sync_is_unsupported(tmp_path, monkeypatch, code, raised):
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    if raised:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_atomic(tmp_path / "a", b"x")
    else:
        write_atomic(tmp_path / "a", b"x")
    assert (tmp_path / "a").exists() != raised
