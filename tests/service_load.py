"""Loads a service, and prints how it performs, with the target or a baseline beside each figure.

``PYTHONPATH=.:tests python tests/service_load.py NAME --weights weights``, where NAME is ``burst``,
``latency``, ``throughput``, ``get``, ``worklist`` or ``soak``.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import many_pictures
from load_clients import (
    connected,
    copy,
    send,
    small,
    unfinished,
    upload_at_once,
    wait_until_judged,
)
from load_figures import (
    MOST_MB,
    PeakMemory,
    memory_mb,
    p50,
    p95,
    print_figure,
    print_machine,
    processor_s,
    timed_ms,
)
from load_soak import soak
from service_process import ServiceProcess, environment, new_token

from pipeline.config import RunConfig
from pipeline.engine import Engine
from pipeline.service.settings import engine_config
from pipeline.source import NamedBytes
from pipeline.studies import pseudonym

_SETTLE_S = 3.0
_MOST_GROWTH_MB = 50.0


@dataclass(frozen=True)
class Load:
    """A service that is ready, and tokens.

    Attributes:
        service: The process.
        sender: Token of a sender.
        reader: Token of a reader.
    """

    service: ServiceProcess
    sender: str
    reader: str


@contextmanager
def running(data: Path, weights: Path, *words: str) -> Iterator[Load]:
    """A service on a data folder, which is made if it is missing."""
    sender, reader = new_token(data, "sender"), new_token(data, "reader")
    with ServiceProcess(data, weights, *words) as service:
        yield Load(service, sender, reader)


@dataclass(frozen=True)
class Burst:
    """What a burst of uploads caused.

    Attributes:
        answers: Counts by status; see :func:`.load_clients.upload_at_once`.
        pictures: Different numbers of pictures that were acknowledged.
        judged: Results in the database.
        before_mb, peak_mb, after_mb: Memory after a small burst, at most, and after the burst.
    """

    answers: Counter[str]
    pictures: int
    judged: int
    before_mb: float
    peak_mb: float
    after_mb: float


def burst(folder: Path, weights: Path, uploads: int = 1000, *words: str) -> Burst:
    """Send many pictures at once, after a small burst, and wait until all are judged.

    Args:
        folder: For the data folder.
        weights: Weights folder.
        uploads: Number of pictures.
        words: Further options of the service.
    """
    contents = [small(number) for number in range(uploads)]
    warm = [small(number) for number in range(uploads, uploads + min(uploads, 50))]
    with running(folder / "data", weights, *words) as load:
        service = load.service
        upload_at_once(service, load.sender, warm, "warm")
        wait_until_judged(service.data)
        time.sleep(_SETTLE_S)
        before_mb = memory_mb(service.pid)
        started = time.perf_counter()
        with PeakMemory(service.pid) as peak:
            numbers, answers = upload_at_once(service, load.sender, contents, "burst")
            acknowledged_s = time.perf_counter() - started
            wait_until_judged(service.data)
            judged_s = time.perf_counter() - started
        time.sleep(_SETTLE_S)
        after_mb = memory_mb(service.pid)
        with connected(service, load.sender) as client:
            judged = sum(bool(client.get(f"/pictures/{n}").json()["results"]) for n in numbers)
    print_figure("uploads at once", uploads)
    print_figure("all acknowledged after, s", acknowledged_s)
    print_figure("all judged after, s", judged_s)
    print_figure("answers", ", ".join(f"{n} x {name}" for name, n in sorted(answers.items())))
    print_figure("judged pictures", judged, f"of {uploads}")
    print_figure("memory before, MB", before_mb, f"after {len(warm)} pictures")
    print_figure("memory at most, MB", peak.mb)
    print_figure("memory after, MB", after_mb, f"target < {MOST_MB:g}")
    growth = f"target < {_MOST_GROWTH_MB:g}"
    print_figure("growth, MB", after_mb - before_mb, growth)
    return Burst(answers, len(set(numbers)), judged, before_mb, peak.mb, after_mb)


def latency(folder: Path, weights: Path, pictures: int = 60) -> None:
    """Print the time from upload to visible result, and that of the engine alone, twice each."""
    for turn in range(2):
        contents = [copy(turn * pictures + number) for number in range(pictures)]
        alone = _engine_ms(weights, contents)
        with running(folder / f"data-{turn}", weights) as load:
            with connected(load.service, load.sender) as client:
                _visible_ms(client, copy(10**6), "warm")
                served = [
                    _visible_ms(client, content, f"picture-{number}")
                    for number, content in enumerate(contents)
                ]
            memory = memory_mb(load.service.pid)
        print_figure("engine alone, ms, median / p95", f"{p50(alone):.0f} / {p95(alone):.0f}")
        print_figure("upload to result, ms, median / p95", f"{p50(served):.0f} / {p95(served):.0f}")
        print_figure("difference of p95, ms", p95(served) - p95(alone), "target <= 25")
        print_figure("memory, MB", memory, f"target < {MOST_MB:g}")


def _visible_ms(client: httpx.Client, content: bytes, key: str) -> float:
    """Upload a picture and ask for it every 5 ms until it has a result; milliseconds."""
    started = time.perf_counter()
    number = send(client, content, key)
    while not client.get(f"/pictures/{number}").json()["results"]:
        time.sleep(0.005)
    return timed_ms(started)


def _engine_ms(weights: Path, contents: list[bytes]) -> list[float]:
    """Milliseconds that an engine, opened as in the service, takes for each file."""
    times = []
    config = engine_config(RunConfig(device="cpu"))
    with Engine.open(
        weights, config, rendered=True, study_of=lambda _, uid: pseudonym(uid) if uid else None
    ) as engine:
        engine.read(NamedBytes("warm.jpg", copy(10**6)))
        for content in contents:
            started = time.perf_counter()
            engine.read(NamedBytes("picture.jpg", content))
            times.append(timed_ms(started))
    return times


def throughput(folder: Path, weights: Path, pictures: int = 400) -> None:
    """Print pictures per second of the service and of ``fxpipe run`` on the same files, twice."""
    few = max(2, pictures // 40)
    shares = []
    for turn in range(2):
        contents = [copy(turn * pictures + number) for number in range(pictures)]
        start_s, start_used = _run_s(folder, weights, contents[:few])
        run_s, run_used = _run_s(folder, weights, contents)
        run_rate = (pictures - few) / (run_s - start_s)
        run_ms = (run_used - start_used) / (pictures - few) * 1000.0
        with running(folder / f"data-{turn}", weights) as load:
            upload_at_once(load.service, load.sender, [copy(10**6 + n) for n in range(4)], "warm")
            wait_until_judged(load.service.data)
            used, started = processor_s(load.service.pid), time.perf_counter()
            _, answers = upload_at_once(load.service, load.sender, contents, "picture")
            wait_until_judged(load.service.data)
            service_s = time.perf_counter() - started
            used = processor_s(load.service.pid) - used
            memory = memory_mb(load.service.pid)
        rate = pictures / service_s
        shares.append(rate / run_rate)
        print_figure("fxpipe run, pictures/s", run_rate, f"{few} pictures: {start_s:.1f} s")
        print_figure("service, pictures/s", rate, f"{pictures} pictures: {service_s:.1f} s")
        beside = f"fxpipe run {run_ms:.1f}"
        print_figure("processor time, ms a picture", used / pictures * 1000.0, beside)
        print_figure("share, %", 100.0 * shares[-1], "target >= 90")
        print_figure("answers", ", ".join(f"{n} x {name}" for name, n in sorted(answers.items())))
        print_figure("memory, MB", memory, f"target < {MOST_MB:g}")
        print_machine()


def _run_s(folder: Path, weights: Path, contents: list[bytes]) -> tuple[float, float]:
    """Seconds of ``fxpipe run`` on some contents as files, and its processor time in seconds."""
    source = folder / "files"
    source.mkdir()
    for number, content in enumerate(contents):
        (source / f"{number:05}.jpg").write_bytes(content)
    words = [
        "run", "--input", source, "--output", folder / "run", "--weights", weights,
        "--device", "cpu", "--quiet", "--restart",
    ]  # fmt: skip
    used, started = _children_s(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)], env=environment(), check=True
    )
    seconds, used = time.perf_counter() - started, _children_s() - used
    shutil.rmtree(source)
    shutil.rmtree(folder / "run")
    return seconds, used


def _children_s() -> float:
    """Processor time of all child processes that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def get(folder: Path, weights: Path, requests: int = 400) -> None:
    """Print the time of requests while the engine is busy, and while it is idle."""
    with running(folder / "data", weights) as load, connected(load.service, load.reader) as client:
        first = [copy(number) for number in range(60)]
        numbers, _ = upload_at_once(load.service, load.sender, first, "first")
        wait_until_judged(load.service.data)
        idle = _get_ms(client, numbers, requests)
        stop = threading.Event()
        feeding = threading.Thread(target=_keep_busy, args=(load, stop), daemon=True)
        feeding.start()
        while unfinished(load.service.data) < 30:
            time.sleep(0.05)
        busy = _get_ms(client, numbers, requests)
        waiting = unfinished(load.service.data)
        stop.set()
        feeding.join()
        for name in idle:
            beside = f"idle {p95(idle[name]):.1f}, target <= 50"
            print_figure(f"GET {name}, p95, ms", p95(busy[name]), beside)
        print_figure("jobs at the end", waiting, "must be > 0")
        print_figure("memory, MB", memory_mb(load.service.pid), f"target < {MOST_MB:g}")


def _keep_busy(load: Load, stop: threading.Event) -> None:
    """Upload pictures so that some wait all the time."""
    number = 1000
    with connected(load.service, load.sender) as client:
        while not stop.is_set():
            if unfinished(load.service.data) > 60:
                time.sleep(0.1)
                continue
            send(client, copy(number), f"busy-{number}")
            number += 1


def _get_ms(client: httpx.Client, numbers: list[int], requests: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"/pictures": [], "/pictures/{number}": []}
    for place in range(requests):
        for name, path in zip(
            times, ("/pictures", f"/pictures/{numbers[place % len(numbers)]}"), strict=True
        ):
            started = time.perf_counter()
            assert client.get(path).status_code == 200
            times[name].append(timed_ms(started))
    return times


PAGES: dict[str, dict[str, str]] = {
    "first page": {},
    "newest": {"order": "newest"},
    "positive": {"answer": "positive"},
    "failed, newest": {"state": "failed", "order": "newest"},
    "hand": {"region": "hand"},
    "elbow (rare)": {"region": "elbow"},
    "reviewed (rare)": {"reviewed": "true"},
    "not reviewed": {"reviewed": "false"},
    "hand, reviewed (rare)": {"region": "hand", "reviewed": "true"},
    "later page": {"after": "2-500000"},
    "later page, newest": {"after": "0-300000", "order": "newest"},
    "studies": {},
    "studies, newest": {"order": "newest"},
}
"""Names and queries of pages of a long worklist."""


def worklist(folder: Path, weights: Path, pictures: int = 10**6, requests: int = 60) -> None:
    """Print the time of pages of a long worklist, and of an upload, also with an empty one."""
    data = folder / "data"
    with running(data, weights) as load, connected(load.service, load.sender) as client:
        empty = _upload_ms(client, requests, 0)
        wait_until_judged(data)
    shutil.rmtree(data)
    with running(data, weights):
        pass  # makes the database with the engine
    started = time.perf_counter()
    many_pictures.fill(data, pictures)
    print_figure("pictures in the database", pictures, f"{time.perf_counter() - started:.0f} s")
    with running(data, weights) as load:
        with connected(load.service, load.reader) as client:
            for name, query in PAGES.items():
                path = "/studies" if name.startswith("studies") else "/pictures"
                times, used = [], processor_s(load.service.pid)
                for _ in range(requests):
                    started = time.perf_counter()
                    assert client.get(path, params=query).status_code == 200
                    times.append(timed_ms(started))
                used_ms = (processor_s(load.service.pid) - used) / requests * 1000.0
                beside = f"target <= 50; processor time {used_ms:.1f} ms"
                print_figure(f"{name}, p95, ms", p95(times), beside)
        with connected(load.service, load.sender) as client:
            full = _upload_ms(client, requests, 1000)
        wait_until_judged(data)
        print_figure("upload, p95, ms", p95(full), f"empty database {p95(empty):.1f}")
        print_figure("memory, MB", memory_mb(load.service.pid), f"target < {MOST_MB:g}")


def _upload_ms(client: httpx.Client, requests: int, first: int) -> list[float]:
    """Milliseconds of uploads, each after a pause so that the engine is not busy all the time."""
    times = []
    for number in range(first, first + requests):
        content = small(number)
        started = time.perf_counter()
        send(client, content, f"upload-{number}")
        times.append(timed_ms(started))
        time.sleep(0.2)
    return times


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(COMMANDS))
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--number", type=int, help="of uploads, pictures or requests")
    parser.add_argument("--minutes", type=float, default=15.0, help="of soak")
    given = parser.parse_args()
    weights = given.weights.resolve()
    print_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.name == "soak":
            with running(folder / "data", weights) as load:
                soak(load.service, load.sender, load.reader, given.minutes)
        else:
            number = () if given.number is None else (given.number,)
            COMMANDS[given.name](folder, weights, *number)
    print_machine()


COMMANDS: dict[str, Callable[..., object]] = {
    "burst": burst, "latency": latency, "throughput": throughput, "get": get,
    "worklist": worklist, "soak": soak,
}  # fmt: skip


if __name__ == "__main__":
    main()
