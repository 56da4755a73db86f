"""What a decoder does to its process costs one row: crashes, hangs, hunger, nonsense."""

from __future__ import annotations

import hashlib
import os
import signal
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
import pytest
import silent_worker

from pipeline.config import RunConfig
from pipeline.errors import StartError
from pipeline.io import Room
from pipeline.io.limits import MAX_FILE_BYTES
from pipeline.outcome import Outcome, Status
from pipeline.preprocess import PreprocessSpec
from pipeline.reading.in_process import InProcessReader
from pipeline.reading.open_reader import open_reader
from pipeline.reading.prepared_picture import Item, Prepared, Reader, ReadOptions
from pipeline.reading.worker_pool import IsolatedReader
from pipeline.source import NamedBytes
from pipeline.timing import Clock

SPECS = (PreprocessSpec(height_px=32, width_px=48), PreprocessSpec(height_px=40, width_px=40))
WANTED = ReadOptions(SPECS, identity=True, rendered=True)
TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def bad() -> Iterator[IsolatedReader]:
    reader = IsolatedReader(Room(10**6), TIMEOUT_S, misbehaving_worker.__name__)
    yield reader
    reader.stop()


@pytest.fixture(scope="module")
def good() -> Iterator[Reader]:
    with open_reader(RunConfig()) as reader:
        yield reader


def read(
    reader: Reader, folder: Path | None, words: str, options: ReadOptions = WANTED
) -> list[Item]:
    """From a file in a folder, or without one from memory."""
    if folder is None:
        return list(reader.read(NamedBytes("a.dcm", words.encode()), options, Clock()))
    path = folder / "a.dcm"
    path.write_text(words)
    return list(reader.read(path, options, Clock()))


@pytest.fixture(params=["file", "memory"])
def folder(request, tmp_path) -> Path | None:
    return tmp_path if request.param == "file" else None


@pytest.mark.parametrize(
    ("words", "reason"),
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
def test_the_worst_costs_one_row_with_a_reason(bad, folder, words, reason):
    started = time.perf_counter()
    (outcome,) = read(bad, folder, words)
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.image.frame) == (Status.FAILED, None)
    assert outcome.error is not None
    assert outcome.error.startswith("a.dcm: found a file that ")
    assert reason in outcome.error
    assert outcome.error.endswith(", expected a valid one")
    assert outcome.image.sha256 == hashlib.sha256(words.encode()).hexdigest()
    assert time.perf_counter() - started < TIMEOUT_S + 9.0
    assert [type(item) for item in read(bad, folder, "good")] == [Prepared]


def test_what_a_worker_has_started_ends_with_it(bad, tmp_path):
    (outcome,) = read(bad, tmp_path, "breed")
    assert "kept a reader busy" in str(outcome.error)
    child = int((tmp_path / "child").read_text())
    for _ in range(50):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it lives")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_hunger_costs_one_row_and_no_memory(bad, folder):
    (outcome,) = read(bad, folder, "eat")
    assert isinstance(outcome, Outcome)
    assert "needs more memory than the 168 MB that it is allowed" in str(outcome.error)


@pytest.mark.parametrize("end", ["segfault", "hang", "stumble", "babble"])
def test_the_frames_before_the_worst_are_kept(bad, folder, end):
    *frames, last = read(bad, folder, f"good good good {end} good")
    assert [frame.image.frame for frame in frames] == [0, 1, 2]
    assert all(isinstance(frame, Prepared) for frame in frames)
    assert isinstance(last, Outcome)
    assert last.image.frame == 3


def test_what_a_decoder_prints_is_lost(bad, tmp_path, capfd):
    assert [type(item) for item in read(bad, tmp_path, "print good")] == [Prepared] * 2
    assert capfd.readouterr() == ("", "")


def test_others_read_on_beside_the_worst(bad, tmp_path):
    names = ["hang", "good", "segfault", "good", "good good", "eat", "good"] * 3
    paths = []
    for i, words in enumerate(names):
        paths.append(tmp_path / f"{i}.dcm")
        paths[-1].write_text(words)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda path: list(bad.read(path, WANTED, Clock())), paths))
    for path, words, items in zip(paths, names, found, strict=True):
        assert all(item.image.path == path for item in items)
        assert len(items) == len(words.split())
        assert isinstance(items[0], Prepared) == ("good" in words)


def test_waiting_for_room_is_not_being_busy(tmp_path):
    """Four readers share room for one picture: none is busy for more than 0.9 s, and all 3.6 s."""
    reader = IsolatedReader(Room(100), 2.5, misbehaving_worker.__name__)
    paths = [tmp_path / str(i) for i in range(4)]
    for path in paths:
        path.write_text("doze doze doze")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: list(reader.read(path, WANTED, Clock())), paths))
    reader.stop()
    assert [type(item) for items in found for item in items] == [Prepared] * 12


def test_a_file_of_many_pictures_waits_for_its_consumer(bad, tmp_path):
    """What is read ahead of one file is bounded, and another file may be read meanwhile."""
    large = ReadOptions((PreprocessSpec(height_px=1024, width_px=1024),))
    path = tmp_path / "cine.dcm"
    path.write_text("good " * 12)
    clock = Clock()
    items = bad.read(path, large, clock)
    assert not clock.seconds  # a worker tells its seconds at the end of the file
    assert [type(item) for item in read(bad, tmp_path, "good")] == [Prepared]
    kept = list(items)
    assert [item.image.frame for item in kept] == list(range(12))
    assert all(isinstance(item, Prepared) for item in kept)
    assert clock.seconds


def test_who_leaves_in_the_middle_leaves_nothing_behind(tmp_path):
    reader = IsolatedReader(Room(100), 60.0, misbehaving_worker.__name__)
    path = tmp_path / "a"
    path.write_text("hang")
    thread = threading.Thread(target=lambda: list(reader.read(path, WANTED, Clock())))
    thread.start()
    (worker,) = reader._workers
    while not worker.busy:
        time.sleep(0.05)
    time.sleep(0.5)  # it hangs
    started = time.perf_counter()
    reader.stop()
    thread.join(10.0)
    assert time.perf_counter() - started < 5.0
    with pytest.raises(ProcessLookupError):
        os.kill(worker._process.pid, 0)
    assert not reader._watcher.is_alive()


def test_a_worker_ends_with_its_run(tmp_path):
    """Nobody has to stop it: the end of its stdin is enough."""
    reader = IsolatedReader(Room(100), 60.0)
    (worker,) = reader._workers
    worker.wait_ready()
    worker._requests.close()
    assert worker._process.wait(10.0) == 1
    reader.stop()


def test_a_worker_that_cannot_start_is_an_error_of_the_run(tmp_path):
    reader = IsolatedReader(Room(100), 60.0, "json.tool_that_is_not_there")
    with pytest.raises(StartError, match="cannot be started: found a process that ended"):
        reader.read(tmp_path / "a", WANTED, Clock())
    reader.stop()


def pictures(folder: Path) -> list[Path]:
    """Pictures of every kind that readers tell apart."""
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
    return [*sorted(folder.iterdir()), folder / "gone.png"]


def facts(item: Item) -> tuple[object, ...]:
    if isinstance(item, Outcome):
        return item.image, item.status, item.error
    shown = item.rendered and (item.rendered.pixels.tobytes(), item.rendered.reduction)
    return (
        *(item.image, item.header, item.identity, item.flags, item.placements, shown),
        *((spec, array.tobytes()) for spec, array in item.arrays.items()),
    )


@pytest.mark.parametrize("options", [WANTED, ReadOptions(SPECS[:1])])
def test_a_worker_says_what_the_reader_here_says(good, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    here = InProcessReader(Room(10**6))
    paths = [Path(path.name) for path in pictures(tmp_path)]
    contents = [NamedBytes(path.name, path.read_bytes()) for path in paths if path.exists()]
    for source in [*paths, *contents, NamedBytes("empty.png", b"")]:
        ours, theirs = Clock(), Clock(time.thread_time)
        alone = [facts(item) for item in here.read(source, options, ours)]
        assert [facts(item) for item in good.read(source, options, theirs)] == alone
        assert set(theirs.seconds) == set(ours.seconds)


def test_content_in_memory_is_read_as_its_file_is(good, tmp_path):
    for path in pictures(tmp_path):
        if path.exists():
            items = list(good.read(path, WANTED, Clock()))
            again = list(good.read(NamedBytes(path.name, path.read_bytes()), WANTED, Clock()))
            assert [facts(item)[1:] for item in again] == [facts(item)[1:] for item in items]
            for one, other in zip(again, items, strict=True):
                assert one.image == replace(other.image, path=None)


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(("name", "status"), [("a.dcm", "failed"), ("a.zip", "unsupported")])
def test_content_in_memory_has_the_limits_of_a_file(good, isolated, name, status):
    reader = good if isolated else InProcessReader(Room(10**6))
    content = bytes(MAX_FILE_BYTES + 1)  # no memory is taken for zeros that nobody looks at
    (outcome,) = reader.read(NamedBytes(name, content), WANTED, Clock())
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.image.sha256) == (status, None)
    expected = f"{name}: found {MAX_FILE_BYTES + 1} bytes, expected at most {MAX_FILE_BYTES}"
    assert outcome.error == expected


def test_a_worker_has_memory_for_content_that_it_is_sent(tmp_path):
    """For more than it may have for a small picture, such as the one before."""
    with open_reader(RunConfig(workers=1)) as reader:
        for _ in range(2):
            assert len(read(reader, None, "text")) == 1
            large = NamedBytes("zeros.dcm", bytes(192 * 2**20))
            (outcome,) = reader.read(large, WANTED, Clock())
            assert isinstance(outcome, Outcome)
            assert "found nothing but zero bytes" in str(outcome.error)


def test_a_worker_that_does_not_listen_is_ended():
    """Content fills the pipe: to wait for room in it must not take for ever."""
    reader = IsolatedReader(Room(10**8), 1.0, silent_worker.__name__)
    started = time.perf_counter()
    (outcome,) = reader.read(NamedBytes("a.dcm", bytes(10**7)), WANTED, Clock())
    assert "kept a reader busy for more than 1 s" in str(getattr(outcome, "error", None))
    assert time.perf_counter() - started < 30.0
    reader.stop()
