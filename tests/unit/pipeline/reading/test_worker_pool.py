"""Workers: a crash, hang, memory excess or malformed message affects only one row."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import factories
import misbehaving_worker
import numpy as np
import psutil
import pytest
import silent_worker

from pipeline.config import RunConfig
from pipeline.errors import StartError
from pipeline.io import MemoryBudget
from pipeline.io.limits import MAX_FILE_BYTES
from pipeline.outcome import Outcome, Status
from pipeline.preprocess import PreprocessSpec
from pipeline.reading.in_process import InProcessReader
from pipeline.reading.open_reader import open_reader
from pipeline.reading.prepared_picture import Item, Prepared, Reader, ReadOptions
from pipeline.reading.worker_pool import IsolatedReader
from pipeline.source import NamedBytes, Source
from pipeline.timing import Clock

pytestmark = pytest.mark.slow

SPECS = (PreprocessSpec(height_px=32, width_px=48), PreprocessSpec(height_px=40, width_px=40))
OPTIONS = ReadOptions(SPECS, identity=True, rendered=True)
TIMEOUT_S = 2.0
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def bad() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(MemoryBudget(10**6), TIMEOUT_S, misbehaving_worker.__name__)
    yield reader
    reader.stop()


@pytest.fixture(scope="module")
def good() -> Iterator[Reader]:
    with open_reader(RunConfig()) as reader:
        yield reader


def read(
    reader: Reader, folder: Path | None, actions: str, options: ReadOptions = OPTIONS
) -> list[Item]:
    """Read a file in the folder, or content in memory if there is none."""
    if folder is None:
        return list(reader.read(NamedBytes("a.dcm", actions.encode()), options, Clock()))
    path = folder / "a.dcm"
    path.write_text(actions)
    return list(reader.read(path, options, Clock()))


@pytest.fixture(params=["file", "memory"])
def folder(request, tmp_path) -> Path | None:
    return tmp_path if request.param == "file" else None


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("segfault", f"crashed its reader (signal {signal.SIGSEGV.value})"),
        ("abort", f"crashed its reader (signal {signal.SIGABRT.value})"),
        ("leave", "ended its reader (exit status 3)"),
        ("hang", f"kept a reader busy for more than {TIMEOUT_S:g} s"),
        ("stumble", "caused an internal error (KeyError)"),
        ("babble", "made its reader send a malformed message"),
        ("boast", "made its reader send a malformed message"),
        ("lie", "made its reader send a malformed message"),
    ],
)
def test_failure_of_a_worker_is_one_failed_outcome(bad, folder, action, reason):
    started = time.perf_counter()
    (outcome,) = read(bad, folder, action)
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.image.frame) == (Status.FAILED, None)
    assert outcome.error is not None
    assert outcome.error.startswith("a.dcm: found a file that ")
    assert reason in outcome.error
    assert outcome.error.endswith(", expected a valid one")
    assert outcome.image.sha256 == hashlib.sha256(action.encode()).hexdigest()
    assert time.perf_counter() - started < TIMEOUT_S + 9.0
    assert [type(item) for item in read(bad, folder, "good")] == [Prepared]


def test_child_processes_of_a_worker_end_with_it(bad, tmp_path):
    (outcome,) = read(bad, tmp_path, "breed")
    assert "kept a reader busy" in str(outcome.error)
    child = int((tmp_path / "child").read_text())
    for _ in range(50):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the child process has not ended")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits data memory")
def test_memory_excess_is_one_failed_outcome(bad, folder):
    (outcome,) = read(bad, folder, "eat")
    assert isinstance(outcome, Outcome)
    assert "needs more memory than the 168 MB that it is allowed" in str(outcome.error)


@pytest.mark.parametrize("action", ["segfault", "hang", "stumble", "babble"])
def test_frames_before_a_failure_are_kept(bad, folder, action):
    *frames, last = read(bad, folder, f"good good good {action} good")
    assert [frame.image.frame for frame in frames] == [0, 1, 2]
    assert all(isinstance(frame, Prepared) for frame in frames)
    assert isinstance(last, Outcome)
    assert last.image.frame == 3


def test_output_of_a_decoder_is_discarded(bad, tmp_path, capfd):
    assert [type(item) for item in read(bad, tmp_path, "print good")] == [Prepared] * 2
    assert capfd.readouterr() == ("", "")


def test_other_workers_continue_after_a_failure(bad, tmp_path):
    contents = ["hang", "good", "segfault", "good", "good good", "eat", "good"] * 3
    paths = []
    for i, actions in enumerate(contents):
        paths.append(tmp_path / f"{i}.dcm")
        paths[-1].write_text(actions)
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda path: list(bad.read(path, OPTIONS, Clock())), paths))
    for path, actions, items in zip(paths, contents, results, strict=True):
        assert all(item.image.path == path for item in items)
        assert len(items) == len(actions.split())
        assert isinstance(items[0], Prepared) == ("good" in actions)


def test_waiting_for_the_memory_budget_does_not_count_as_busy(tmp_path):
    """Four readers share a budget for one picture: each is busy for 0.9 s, all four for 3.6 s."""
    reader = IsolatedReader(MemoryBudget(100), 2.5, misbehaving_worker.__name__)
    paths = [tmp_path / str(i) for i in range(4)]
    for path in paths:
        path.write_text("doze doze doze")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda path: list(reader.read(path, OPTIONS, Clock())), paths))
    reader.stop()
    assert [type(item) for items in results for item in items] == [Prepared] * 12


def test_reading_waits_for_the_consumer(bad, tmp_path):
    """The data read ahead of a consumer is limited, and another file can be read meanwhile."""
    large = ReadOptions((PreprocessSpec(height_px=1024, width_px=1024),))
    path = tmp_path / "cine.dcm"
    path.write_text("good " * 12)
    clock = Clock()
    items = bad.read(path, large, clock)
    assert not clock.seconds  # a worker reports its seconds at the end of the file
    assert [type(item) for item in read(bad, tmp_path, "good")] == [Prepared]
    kept = list(items)
    assert [item.image.frame for item in kept] == list(range(12))
    assert all(isinstance(item, Prepared) for item in kept)
    assert clock.seconds


def test_stop_ends_a_busy_worker_and_all_threads(tmp_path):
    threads, processes = set(threading.enumerate()), set(psutil.Process().children())
    reader = IsolatedReader(MemoryBudget(100), 60.0, misbehaving_worker.__name__)
    (worker,) = set(psutil.Process().children()) - processes
    thread = threading.Thread(target=lambda: read(reader, tmp_path, "breed"))
    thread.start()
    deadline = time.perf_counter() + 60.0
    while not (tmp_path / "child").exists():  # written by the worker, which then waits
        assert time.perf_counter() < deadline
        time.sleep(0.05)
    started = time.perf_counter()
    reader.stop()
    thread.join(10.0)
    assert time.perf_counter() - started < 5.0
    assert not worker.is_running()
    assert set(threading.enumerate()) <= threads


def test_worker_ends_if_its_run_is_killed():
    """The end of its stdin is sufficient."""
    code = (
        "import os, psutil, time\n"
        "from pipeline.config import RunConfig\n"
        "from pipeline.reading.open_reader import open_reader\n"
        "with open_reader(RunConfig(workers=1)):\n"
        "    print(*(child.pid for child in psutil.Process().children()), flush=True)\n"
        "    time.sleep(1000)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert run.stdout is not None
    with run:
        workers = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
        assert workers
        run.kill()
    psutil.wait_procs(workers, timeout=30.0)
    assert not [worker for worker in workers if worker.is_running()]


def test_worker_that_cannot_start_is_an_error_of_the_run(tmp_path):
    reader = IsolatedReader(MemoryBudget(100), 60.0, "json.missing_module")
    with pytest.raises(StartError, match="cannot be started: found a process that ended"):
        reader.read(tmp_path / "a", OPTIONS, Clock())
    reader.stop()


def pictures(folder: Path) -> list[Path]:
    """Files of every kind that readers distinguish."""
    pixels = factories.ramp(60, 50, 0, 65535)
    frames = np.stack([pixels, pixels[::-1]])
    contents = {
        "a.png": factories.raster(pixels, "PNG"),
        "b.dcm": factories.dicom_file(factories.dicom(frames)),
        "c.txt": b"text",
        "d.jpg": b"\xff\xd8\xff\xe0",
        "e\udcff\n.png": factories.raster(pixels, "PNG"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [*sorted(folder.iterdir()), folder / "missing.png"]


def values_of(item: Item) -> tuple[object, ...]:
    """The values of an item, in a form that can be compared."""
    if isinstance(item, Outcome):
        return item.image, item.status, item.error
    rendered = item.rendered and (item.rendered.pixels.tobytes(), item.rendered.reduction)
    return (
        *(item.image, item.header, item.identity, item.flags, item.placements, rendered),
        *((spec, array.tobytes()) for spec, array in item.arrays.items()),
    )


@pytest.mark.parametrize("options", [OPTIONS, ReadOptions(SPECS[:1])])
def test_worker_gives_the_items_of_the_in_process_reader(good, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    in_process = InProcessReader(MemoryBudget(10**6))
    paths = [Path(path.name) for path in pictures(tmp_path)]
    contents = [NamedBytes(path.name, path.read_bytes()) for path in paths if path.exists()]
    sources: list[Source] = [*paths, *contents, NamedBytes("empty.png", b"")]
    for source in sources:
        clock, worker_clock = Clock(), Clock(time.thread_time)
        expected = [values_of(item) for item in in_process.read(source, options, clock)]
        assert [values_of(item) for item in good.read(source, options, worker_clock)] == expected
        assert set(worker_clock.seconds) == set(clock.seconds)


def test_content_in_memory_is_read_like_a_file(good, tmp_path):
    for path in pictures(tmp_path):
        if path.exists():
            items = list(good.read(path, OPTIONS, Clock()))
            again = list(good.read(NamedBytes(path.name, path.read_bytes()), OPTIONS, Clock()))
            assert [values_of(item)[1:] for item in again] == [
                values_of(item)[1:] for item in items
            ]
            for one, other in zip(again, items, strict=True):
                assert one.image == replace(other.image, path=None)


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(("name", "status"), [("a.dcm", "failed"), ("a.zip", "unsupported")])
def test_content_in_memory_has_the_size_limit_of_a_file(good, isolated, name, status):
    reader = good if isolated else InProcessReader(MemoryBudget(10**6))
    content = bytes(
        MAX_FILE_BYTES + 1
    )  # the system allocates no memory for zeros that are not read
    (outcome,) = reader.read(NamedBytes(name, content), OPTIONS, Clock())
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.image.sha256) == (status, None)
    expected = f"{name}: found {MAX_FILE_BYTES + 1} bytes, expected at most {MAX_FILE_BYTES}"
    assert outcome.error == expected


def test_worker_has_memory_for_large_content(tmp_path):
    """More than the limit for a small picture such as the one before."""
    with open_reader(RunConfig(workers=1)) as reader:
        for _ in range(2):
            assert len(read(reader, None, "text")) == 1
            large = NamedBytes("zeros.dcm", bytes(192 * 2**20))
            (outcome,) = reader.read(large, OPTIONS, Clock())
            assert isinstance(outcome, Outcome)
            assert "found nothing but zero bytes" in str(outcome.error)


def test_worker_that_does_not_read_requests_is_ended():
    """Content fills the pipe; the wait for space in it has a time limit."""
    reader = IsolatedReader(MemoryBudget(10**8), 1.0, silent_worker.__name__)
    started = time.perf_counter()
    (outcome,) = reader.read(NamedBytes("a.dcm", bytes(10**7)), OPTIONS, Clock())
    assert "kept a reader busy for more than 1 s" in str(getattr(outcome, "error", None))
    assert time.perf_counter() - started < 30.0
    reader.stop()
