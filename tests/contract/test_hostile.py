"""Malicious and broken input: a row with an error for each file, in limited time and memory."""

from __future__ import annotations

import csv
import hashlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import factories
import malicious_files
import misbehaving_worker
import numpy as np
import pydicom
import pytest
from bundles import write_png
from processes import run_measured
from tiny_networks import write_bundles

from pipeline.errors import UnreadableImageError
from pipeline.io import MemoryBudget, read_file
from pipeline.preprocess import PreprocessSpec
from pipeline.reading.prepared_picture import Prepared, ReadOptions
from pipeline.reading.worker_pool import IsolatedReader
from pipeline.timing import Clock

ROOT = Path(__file__).parents[2]
MOST_MB = 1000
OPTIONS = ReadOptions((PreprocessSpec(height_px=64, width_px=64),), rendered=True)

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    isolated = IsolatedReader(MemoryBudget(24 * 10**6), 60.0)
    yield isolated
    isolated.stop()


def run(folder: Path, *words: object) -> tuple[int, int, list[dict[str, str]]]:
    """Run on a folder; returns the exit code, the peak memory in bytes, and the rows."""
    code = "from pipeline.cli import main; main()"
    weights = write_bundles(folder.parent / "weights")
    options = ["--input", folder, "--output", folder.parent / "out", "--weights", weights]
    command = [sys.executable, "-c", code, "run", "--quiet", "--device", "cpu", *options, *words]
    status, peak, seen = run_measured(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not [pid for pid in seen if Path(f"/proc/{pid}").exists()]
    with (folder.parent / "out/results.csv").open(encoding="utf-8", newline="") as file:
        return status, peak, list(csv.DictReader(file))


def test_every_malicious_file_has_a_row(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    errors = {}
    for name, content, error in malicious_files.cases():
        (folder / name).write_bytes(content)
        errors[name] = error
    started = time.perf_counter()
    status, peak, rows = run(folder, "--timeout-per-file", 60)
    assert time.perf_counter() - started < 180
    assert status == 1
    assert [row["path"] for row in rows] == sorted(errors)
    for row in rows:
        error = errors[row["path"]]
        if error is None:
            assert row["status"] in ("ok", "unsupported"), row
            assert "found a picture" not in row["error"]
        else:
            assert row["status"] == "failed", row
            assert error in row["error"], row
            assert "expected " in row["error"], row
    assert peak / 1e6 < MOST_MB


def test_pipes_devices_links_and_unusual_names_have_rows(tmp_path):
    folder = tmp_path / "in"
    good = write_png(folder / "good.png", {"hand": 0.9}).read_bytes()
    os.mkfifo(folder / "pipe.dcm")
    (folder / "null.dcm").symlink_to("/dev/null")
    (folder / "zero.dcm").symlink_to("/dev/zero")
    (folder / "loop.dcm").symlink_to(folder / "pool.dcm")
    (folder / "pool.dcm").symlink_to(folder / "loop.dcm")
    (folder / "own").symlink_to(folder)
    (folder / "gone.dcm").symlink_to(folder / "nowhere")
    (folder / "new\nline\r.png").write_bytes(good)
    (folder / "=cmd.png").write_bytes(good)
    (folder / ("n" * 250 + ".png")).write_bytes(good)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).write_bytes(good)
    with socket.socket(socket.AF_UNIX) as listener:
        there = Path.cwd()
        os.chdir(folder)  # the path of a socket is limited to 107 bytes
        try:
            listener.bind("socket.dcm")
        finally:
            os.chdir(there)
        status, _, rows = run(folder)
    assert status == 1
    errors = {row["path"]: row["error"] for row in rows if row["status"] == "failed"}
    node = "found a pipe, socket or device, expected a regular file"
    for name in ("null.dcm", "pipe.dcm", "socket.dcm", "zero.dcm"):
        assert errors.pop(name) == f"{name}: {node}"
    assert "Too many levels of symbolic links" in errors.pop("loop.dcm")
    assert "Too many levels of symbolic links" in errors.pop("pool.dcm")
    assert "No such file" in errors.pop("gone.dcm")
    assert not errors
    assert len(rows) == 7 + 5


def test_each_crash_or_hang_affects_one_row_of_a_run(tmp_path):
    """From the command line, with a decoder that misbehaves."""
    folder = tmp_path / "in"
    folder.mkdir()
    actions = [
        *("good", "segfault", "good", "hang", "abort", "good", "good good eat", "leave", "good"),
    ]
    for i, action in enumerate(actions):
        (folder / f"{i}.dcm").write_text(action)
    code = (
        "from functools import partial; from pipeline.reading import open_reader; "
        "open_reader.IsolatedReader = partial("
        f"open_reader.IsolatedReader, module={misbehaving_worker.__name__!r}); "
        "from pipeline.cli import main; main()"
    )
    weights = write_bundles(tmp_path / "weights")
    path = os.pathsep.join([str(ROOT), str(Path(misbehaving_worker.__file__).parent)])
    words = ["--input", folder, "--output", tmp_path / "out", "--weights", weights]
    status, peak, seen = run_measured(
        [
            *(sys.executable, "-c", code, "run", "--quiet", "--device", "cpu"),
            *("--timeout-per-file", 3, *words),
        ],
        env={**os.environ, "PYTHONPATH": path},
    )
    assert status == 1
    with (tmp_path / "out/results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    good = [action == "good" for action in actions]
    assert [(row["path"], row["frame"], row["status"] == "failed") for row in rows] == [
        *((f"{i}.dcm", "0" if good[i] else "", not good[i]) for i in range(6)),
        *(("6.dcm", "0", False), ("6.dcm", "1", False), ("6.dcm", "2", True)),
        *(("7.dcm", "", True), ("8.dcm", "0", False)),
    ]
    assert "kept a reader busy for more than 3 s" in rows[3]["error"]
    assert "crashed its reader (signal 11)" in rows[1]["error"]
    assert peak / 1e6 < MOST_MB
    assert not [pid for pid in seen if Path(f"/proc/{pid}").exists()]


def test_file_that_changes_during_reading_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 1000)
    fstat = os.fstat
    for change in (b"", b"x" * 999, b"y" * 1000, b"x" * 2000):

        def change_after_fstat(descriptor, change=change):
            state = fstat(descriptor)
            path.write_bytes(change)
            return state

        path.write_bytes(b"x" * 1000)
        os.utime(path, (1, 1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", change_after_fstat)
            with pytest.raises(UnreadableImageError, match="the file changed while"):
                read_file(path)


def test_reading_does_not_block_on_a_file_replaced_by_a_pipe(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    original = os.open

    def replace_and_open(*arguments):
        path.unlink()
        os.mkfifo(path)
        return original(*arguments)

    monkeypatch.setattr(os, "open", replace_and_open)
    with pytest.raises(UnreadableImageError, match="found a pipe"):
        read_file(path)


def test_digest_is_that_of_the_decoded_content(reader, tmp_path):
    """The file is rewritten several times and then removed."""
    states = [
        factories.raster(np.full((600, 600), grey, np.uint8), "PNG", compress_level=0)
        for grey in (50, 200)
    ]
    digests = [hashlib.sha256(state).hexdigest() for state in states]
    path = tmp_path / "a.png"
    for turn in range(20):
        path.write_bytes(states[turn % 2])
        (item,) = reader.read(path, OPTIONS, Clock())
        assert isinstance(item, Prepared)
        assert item.rendered is not None
        assert item.rendered.pixels.max() == (50, 200)[digests.index(str(item.image.sha256))]
        if turn == 10:
            path.unlink()
            (missing,) = reader.read(path, OPTIONS, Clock())
            assert "No such file" in str(getattr(missing, "error", None))


def pydicom_files() -> list[Path]:
    """The data files of the pydicom package."""
    folder = Path(pydicom.__file__).parent / "data"
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if path.suffix not in (".py", ".pyc"))


def test_files_of_pydicom_are_read_or_refused_with_a_reason(reader):
    paths = pydicom_files()
    assert len(paths) > 150
    pictures = refusals = 0
    for path in paths:
        started = time.perf_counter()
        items = list(reader.read(path, OPTIONS, Clock()))
        assert time.perf_counter() - started < 30.0, path.name
        assert items, path.name
        for item in items:
            if isinstance(item, Prepared):
                pictures += 1
                assert all(np.isfinite(array).all() for array in item.arrays.values())
            else:
                refusals += 1
                assert str(item.error).startswith(f"{path.name}: "), item.error
                assert "reader" not in str(item.error)  # none crashed its worker
    assert pictures >= 40
    assert refusals >= 100
