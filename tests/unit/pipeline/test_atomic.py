"""Files that are replaced in one step, and are on the disk when they are."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline import atomic
from pipeline.atomic import replacing, write_atomic

PROC = Path("/proc/self/fd").exists()


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with replacing(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_after_an_error_the_old_file_stays_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def broken() -> None:
        with replacing(path) as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "gone/a", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", b"x")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
def test_the_content_is_on_the_disk_before_the_name_and_then_the_folder(tmp_path, monkeypatch):
    path = tmp_path / "a"
    steps: list[tuple[bool, str]] = []

    def watched(handle: int) -> None:
        target = Path(f"/proc/self/fd/{handle}").readlink() if PROC else path
        steps.append((path.exists(), target.name))

    monkeypatch.setattr(atomic, "sync", watched)
    write_atomic(path, b"x")
    assert [there for there, _ in steps] == [False, True]
    if PROC:
        assert [name for _, name in steps] == ["a.partial", tmp_path.name]


@pytest.mark.parametrize(("code", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_is_no_error_and_a_broken_disk_is(
    tmp_path, monkeypatch, code, raised
):
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    if raised:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_atomic(tmp_path / "a", b"x")
    else:
        write_atomic(tmp_path / "a", b"x")
    assert (tmp_path / "a").exists() != raised
