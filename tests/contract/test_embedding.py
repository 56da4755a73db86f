"""fxpipe inside another program: an engine that stays open, and pictures as bytes."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import malicious_files
import misbehaving_worker
import numpy as np
import pytest
from bundles import paint, write_png
from tiny_networks import write_bundles

from pipeline.config import RunConfig
from pipeline.engine import Engine
from pipeline.errors import BusyError, DeviceError
from pipeline.io import MemoryBudget, discover
from pipeline.outcome import Outcome, Status
from pipeline.reading.in_process import InProcessReader
from pipeline.reading.worker_pool import IsolatedReader
from pipeline.report.record import path_text, to_record
from pipeline.runtime.graph import Graph
from pipeline.runtime.session import Weights, load_bundles
from pipeline.source import NamedBytes
from pipeline.studies import studies_by

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
CONFIG = RunConfig(device="cpu", intra_op_threads=1, workers=2, isolate=False)
HAND = factories.raster(paint({"hand": 0.9}, {"hand": 0.8}), "PNG")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bundles(tmp_path_factory.mktemp("embedding") / "weights")


@pytest.fixture(scope="module")
def weights(folder) -> Weights:
    return load_bundles(folder, CONFIG)


@pytest.fixture
def engine(folder) -> Iterator[Engine]:
    before = set(threading.enumerate())
    with Engine.open(folder, CONFIG) as opened:
        yield opened
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("fxpipe-")]


@pytest.fixture(scope="module")
def isolated(folder) -> Iterator[Engine]:
    config = CONFIG.model_copy(update={"isolate": True, "workers": 1, "identifiers": "keep"})
    by_header = studies_by("dicom", Path()).key
    with Engine.open(folder, config, study_of=by_header) as opened:
        yield opened


class Gate(InProcessReader):
    """Delays the picture named ``slow`` until ``opened`` is set."""

    def __init__(self) -> None:
        super().__init__(MemoryBudget(10**6))
        self.opened = threading.Event()

    def read(self, source, options, clock):
        if source.name == "slow":
            assert self.opened.wait(30.0)
        return super().read(source, options, clock)


def row(outcome: Outcome, root: Path = SAMPLES) -> dict[str, Any]:
    return {**to_record(outcome, root), "elapsed_ms": None}


def cine() -> bytes:
    """A DICOM file with two frames of a hand, the first one fractured."""
    frames = np.stack([paint({"hand": 0.9}, {"hand": cell}) for cell in (0.8, 0.1)])
    return factories.dicom_file(factories.dicom(frames, bits=8))


def test_samples_have_equal_rows_from_bytes_and_files(isolated):
    paths = list(discover(SAMPLES))
    assert {path.suffix for path in paths} >= {".jpg", ".dcm"}
    contents = [NamedBytes(path_text(path, SAMPLES), path.read_bytes()) for path in paths]
    of_files, of_bytes = (list(isolated.outcomes(sources)) for sources in (paths, contents))
    assert [row(outcome) for outcome in of_bytes] == [row(outcome) for outcome in of_files]
    for outcome, same in zip(of_bytes, of_files, strict=True):
        assert outcome.image == replace(same.image, path=None)
        assert (outcome.flags, outcome.header, outcome.error) == (
            same.flags, same.header, same.error,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", HAND),
        ("cine.dcm", cine()),
        ("cut.dcm", cine()[:-900]),
        ("IM000001", factories.dicom_file(factories.dicom(paint({"hand": 0.9}), bits=8))),
        ("deep.tif", factories.tiff(factories.ramp(60, 50, 0, 65535))),
        ("empty.dcm", b""),
        ("notes.txt", b"text"),
        ("no text\n\x1b[31m\udcff.png", b"\x89PNG\r\n\x1a\n"),
        ("back\\slash.png", HAND),
    ],
)
def test_generated_files_have_equal_rows_from_bytes_and_files(isolated, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    of_file, of_bytes = isolated.read(path), isolated.read(NamedBytes(name, content))
    assert [row(o, tmp_path) for o in of_bytes] == [row(o, tmp_path) for o in of_file]
    assert [o.image.frame for o in of_bytes] == ([0, 1] if name == "cine.dcm" else [None])
    assert all(o.image.name == name for o in of_bytes)


def test_malicious_bytes_have_the_errors_of_malicious_files(isolated):
    for name, content, words in malicious_files.cases():
        outcomes = isolated.read(NamedBytes(name, content))
        if words is None:
            assert all(o.status in (Status.OK, Status.UNSUPPORTED) for o in outcomes), name
        else:
            error = str(outcomes[-1].error)
            assert outcomes[-1].status is Status.FAILED, name
            assert error.startswith(f"{name}: "), error
            assert words in error, error
            assert "expected " in error, error


def test_crashed_worker_affects_one_file(weights):
    reader = IsolatedReader(MemoryBudget(10**6), 3.0, misbehaving_worker.__name__)
    words = ["good", "segfault", "good good leave", "good"]
    with Engine(weights, CONFIG, reader) as engine:
        futures = [engine.submit(NamedBytes(f"{i}.dcm", w.encode())) for i, w in enumerate(words)]
        results = [future.result(120.0) for future in futures]
    reader.stop()
    failed = [[outcome.status is Status.FAILED for outcome in outcomes] for outcomes in results]
    assert failed == [[False], [True], [False, False, True], [False]]
    assert "1.dcm: found a file that crashed its reader" in str(results[1][0].error)
    assert [outcome.image.frame for outcome in results[2]] == [0, 1, 2]


def test_each_picture_is_answered_without_a_later_one(engine):
    for number in range(30):
        (outcome,) = engine.submit(NamedBytes(f"{number}.png", HAND)).result(30.0)
        assert (outcome.status, outcome.image.name) == (Status.OK, f"{number}.png")


def test_outcomes_are_yielded_before_the_next_source_is_requested(engine, tmp_path):
    path = write_png(tmp_path / "file.png", {"hand": 0.9}, {"hand": 0.8})
    answered = threading.Event()

    def stream() -> Iterator[Path | NamedBytes]:
        yield NamedBytes("first.png", HAND)
        assert answered.wait(30.0)  # the first outcome does not wait for the next picture
        yield path
        yield NamedBytes("second.png", HAND)

    outcomes = engine.outcomes(stream())
    first = next(outcomes)
    answered.set()
    rest = list(outcomes)
    assert [o.image.name for o in (first, *rest)] == ["first.png", "file.png", "second.png"]
    assert all(outcome.findings == first.findings for outcome in rest)


def test_futures_complete_independently(weights):
    reader = Gate()
    with Engine(weights, CONFIG, reader) as engine:
        futures = [engine.submit(NamedBytes(name, HAND)) for name in ("slow", "b", "c")]
        ready = as_completed(futures, 30.0)
        early = {next(ready).result()[0].image.name for _ in range(2)}
        assert (early, futures[0].done()) == ({"b", "c"}, False)
        reader.opened.set()
        assert [f.result(30.0)[0].image.name for f in futures] == ["slow", "b", "c"]


def test_many_threads_share_an_engine(engine):
    cells = [0.1 + 0.05 * (i % 16) for i in range(48)]
    contents = [factories.raster(paint({"hand": 0.9}, {"hand": cell}), "PNG") for cell in cells]

    def read(number: int) -> Outcome:
        (outcome,) = engine.read(NamedBytes(str(number), contents[number]))
        return outcome

    alone = {cell: read(number).findings for number, cell in enumerate(cells[:16])}
    with ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(read, range(len(cells))))
    assert [outcome.image.name for outcome in outcomes] == [str(i) for i in range(len(cells))]
    for outcome, cell in zip(outcomes, cells, strict=True):
        (finding,), (same,) = outcome.findings, alone[cell]
        assert finding.probability == pytest.approx(same.probability, abs=1e-4)


def test_full_engine_refuses_files_until_others_are_done(weights):
    reader = Gate()
    with Engine(weights, CONFIG, reader) as engine:
        futures = [engine.submit(NamedBytes("slow", HAND)) for _ in range(engine.limits.files)]
        with pytest.raises(BusyError, match="expected fewer than"):
            engine.submit(NamedBytes("more", HAND), timeout=0)
        reader.opened.set()
        assert [future.result(30.0)[0].status for future in futures] == [Status.OK] * len(futures)
        assert engine.submit(NamedBytes("more", HAND), timeout=30.0).result(30.0)


def test_device_error_is_raised_and_later_files_are_answered(engine, monkeypatch):
    def fail(self: Graph, outputs: Sequence[str], inputs: np.ndarray) -> list[np.ndarray]:
        raise DeviceError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Graph, "run", fail)
        with pytest.raises(DeviceError, match="out of memory"):
            engine.read(NamedBytes("a.png", HAND))
    assert engine.read(NamedBytes("a.png", HAND))[0].status is Status.OK


def test_closed_engine_refuses_files(folder):
    engine = Engine.open(folder, CONFIG)
    future = engine.submit(NamedBytes("a.png", HAND))
    engine.close()
    assert future.result(0)[0].status is Status.OK
    with pytest.raises(RuntimeError, match="after the end"):
        engine.read(NamedBytes("a.png", HAND))


@pytest.mark.parametrize("name", ["", "n" * 1025])
def test_bytes_need_a_name(name):
    with pytest.raises(ValueError, match="expected 1 to 1024"):
        NamedBytes(name, b"")


def test_examples_of_the_documentation_work(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "weights").symlink_to(folder)
    (tmp_path / "samples").symlink_to(SAMPLES)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/embedding.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(first, "first example", "exec"), names)
    assert capsys.readouterr().out.startswith("upload.jpg ")
    exec(compile(second, "second example", "exec"), names)

    async def read_both(engine: Engine) -> list[Any]:
        contents = {"a.png": HAND, "cine.dcm": cine()}
        return await asyncio.gather(*(names["answer"](engine, *one) for one in contents.items()))

    with Engine.open(folder, CONFIG) as engine:
        (one,), two = asyncio.run(read_both(engine))
    assert (one["path"], one["verdict"]) == ("a.png", "positive")
    assert [(r["path"], r["frame"], r["verdict"]) for r in two] == [
        ("cine.dcm", 0, "positive"), ("cine.dcm", 1, "negative"),
    ]  # fmt: skip
