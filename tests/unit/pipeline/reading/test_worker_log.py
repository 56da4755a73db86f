"""Log of worker processes that end."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import misbehaving_worker
import psutil
import pytest

from pipeline.io import MemoryBudget
from pipeline.preprocess import PreprocessSpec
from pipeline.reading.prepared_picture import Item, Prepared, ReadOptions
from pipeline.reading.worker_pool import IsolatedReader
from pipeline.timing import Clock

OPTIONS = ReadOptions((PreprocessSpec(height_px=32, width_px=32),))


@pytest.fixture
def reader() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(MemoryBudget(10**6), 10.0, misbehaving_worker.__name__)
    yield reader
    reader.stop()


def read(reader: IsolatedReader, folder: Path, words: str) -> list[Item]:
    path = folder / "a\n.dcm"
    path.write_text(words)
    return list(reader.read(path, OPTIONS, Clock()))


def test_crash_during_a_file_is_logged_with_its_signal(reader, tmp_path, caplog):
    caplog.set_level("INFO", "pipeline.reading.worker_pool")
    read(reader, tmp_path, "segfault")
    (record,) = caplog.records
    assert re.fullmatch(
        r"'a\\n\.dcm': worker \d+ was killed by signal 11 after \d+\.\d s; it is replaced",
        record.getMessage(),
    )
    assert record.levelname == "INFO"  # the row of the file contains the error


def test_end_between_two_files_is_a_warning(reader, tmp_path, caplog):
    """No row mentions it."""
    before = set(psutil.Process().children())
    read(reader, tmp_path, "good")
    (worker,) = before & {child for child in psutil.Process().children() if "-P" in child.cmdline()}
    worker.kill()
    while worker.status() != psutil.STATUS_ZOMBIE:  # waiting for it would take its exit status
        time.sleep(0.01)
    assert [type(item) for item in read(reader, tmp_path, "good")] == [Prepared]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"worker {worker.pid} was killed by signal 9 between two files; it is replaced"
    )
