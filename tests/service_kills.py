"""Kills a service at random during its work, and counts lost and duplicate pictures and objects.

``python tests/service_kills.py --under http --kills 200 --weights weights`` prints the counts. Some
kills leave the supervisor alive, which restarts the service; some happen during the start.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import kill_counts
import numpy as np
import postgresql
from dicom_service import orthanc, until
from kill_senders import Senders, by_dicom, by_http, noise, radiographs
from numpy.typing import NDArray
from PIL import Image
from service_process import ROOT, ServiceProcess, free_port, new_token

from pipeline.service.database import sqlite_url

_ALONE = 0.4
"""Share of kills that leave the supervisor alive."""
_DURING_START = 0.3
"""Share of kills before the service is ready."""
_WORKERS = 3
WRONG = (
    "lost", "duplicates", "without_file", "failed", "unknown", "unsent", "missing", "surplus",
    "in another study",
)  # fmt: skip
"""Counts that must be 0."""


@dataclass(frozen=True)
class Task:
    """A series of kills.

    Attributes:
        data: A new data folder.
        weights: Weights folder.
        kills: Number of kills.
        rng: Source of the random times.
        pixels: (H, W) of 12 bits, a radiograph with a fracture.
        patience_s: Longest time in seconds from the last kill to the end of all work.
        ends_leases: Whether to end all leases after the last kill, instead of waiting 60 s.
    """

    data: Path
    weights: Path
    kills: int
    rng: random.Random
    pixels: NDArray[np.uint16]
    patience_s: float = 900.0
    ends_leases: bool = False


def under_http(task: Task) -> Counter[str]:
    """Pictures are uploaded."""
    token = new_token(task.data, "sender")
    service = ServiceProcess(task.data, task.weights)
    return _received(task, service, Senders(noise, by_http(service, token)), clients=4)


def under_dicom(task: Task) -> Counter[str]:
    """Pictures are sent by storescu of dcmtk."""
    port = free_port()
    words = ("--dicom-port", str(port), "--set", "accept_any=true")
    service = ServiceProcess(task.data, task.weights, *words)
    deliver = by_dicom(port, task.data.with_name("sent"))
    senders = Senders(radiographs(task.pixels), deliver, together=3, pause_s=0.5)
    return _received(task, service, senders, clients=2)


def _received(task: Task, service: ServiceProcess, senders: Senders, clients: int) -> Counter[str]:
    url = sqlite_url(task.data)
    with _ended(service):
        senders.start(clients)
        counts = _kill(service, task, most_s=2.0)
        senders.stop()
        kill_counts.wait_until_judged(url, task.patience_s)
        assert service.stop() == 0
    counts.update(kill_counts.received(url, task.data, senders.acknowledged))
    return counts


def under_sending(task: Task) -> Counter[str]:
    """Results are sent to Orthanc."""
    url, token = sqlite_url(task.data), new_token(task.data, "admin")
    settings = ("stable_s=1", "first_retry_s=0.3", "most_retry_s=2")
    service = ServiceProcess(task.data, task.weights, *(w for s in settings for w in ("--set", s)))
    senders = Senders(radiographs(task.pixels), by_http(service, token), pause_s=0.5)
    with orthanc(task.data.with_name("orthanc")) as (http, dimse), _ended(service):
        service.start().wait_ready()
        peer = {"title": "ARCHIVE", "host": "127.0.0.1", "port": dimse, "send": True}
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(f"{service.url}/api/v1/peers", json=peer, headers=headers)
        assert answer.status_code == 201, answer.text
        senders.start(1)
        counts = _kill(service, task, most_s=4.0)
        senders.stop()
        kill_counts.wait_until_judged(url, task.patience_s)
        kill_counts.wait_until_sent(url, task.patience_s)
        assert service.stop() == 0
        counts.update(kill_counts.received(url, task.data, senders.acknowledged))
        counts.update(kill_counts.sent(url, http))
    return counts


def _kill(service: ServiceProcess, task: Task, most_s: float) -> Counter[str]:
    """Start and kill a service repeatedly; at the end it is ready.

    Args:
        service: The service; it may be running.
        task: Number of kills and random times.
        most_s: Longest time in seconds from readiness to a kill.
    """
    rng, counts, start_s = task.rng, Counter[str](), 2.0
    for _ in range(task.kills):
        begun = time.monotonic()
        if not service.is_running:
            service.start()
        if rng.random() < _DURING_START:
            time.sleep(rng.random() * start_s)
            counts["during the start"] += 1
        else:
            service.wait_ready()
            start_s = max(start_s, time.monotonic() - begun)
            time.sleep(rng.random() * most_s)
        _kill_once(service, rng, counts)
        counts.update(kill_counts.interrupted(task.data))
    if not service.is_running:
        service.start()
    service.wait_ready()
    return counts


def _kill_once(service: ServiceProcess, rng: random.Random, counts: Counter[str]) -> None:
    """Kill a service with or without its supervisor, and count the kill."""
    assert service.is_running, service.output.read_text()
    if rng.random() < _ALONE and service.kill_service():
        counts["of the service only"] += 1
    else:
        service.kill()
    counts["kills"] += 1


def under_workers(task: Task) -> Counter[str]:
    """Pictures are uploaded to one process and judged by others, with PostgreSQL."""
    rng, counts = task.rng, Counter[str]()
    with ExitStack() as stack:
        url = stack.enter_context(postgresql.cluster()).new_database()
        token = new_token(task.data, "sender", "--database", url)
        common = ("--database", url, "--set", "run.workers=1", "--roles")
        web = ServiceProcess(task.data, task.weights, *common, "web,dicom,send")
        workers = [
            ServiceProcess(task.data, task.weights, *common, "work") for _ in range(_WORKERS)
        ]
        begun = time.monotonic()
        for number, one in enumerate([web, *workers]):
            one.output = task.data.with_name(f"process-{number}.log")
            stack.enter_context(_ended(one.start()))
        web.wait_ready()
        for one in workers:
            until(lambda one=one: "fxpipe runs work" in one.output.read_text())  # type: ignore[misc]
        start_s = time.monotonic() - begun
        senders = Senders(noise, by_http(web, token))
        senders.start(2)
        for _ in range(task.kills):
            time.sleep(rng.random() * start_s)
            one = rng.choice([web, *workers])
            _kill_once(one, rng, counts)
            if not one.is_running:
                one.start()
        web.wait_ready()
        senders.stop()
        if task.ends_leases:
            kill_counts.end_leases(url)
        kill_counts.wait_until_judged(url, task.patience_s)
        for one in [web, *workers]:
            assert one.stop() == 0
        counts.update(kill_counts.received(url, task.data, senders.acknowledged))
    return counts


@contextmanager
def _ended(service: ServiceProcess) -> Iterator[None]:
    """Kill a service that still runs at the end of the block."""
    try:
        yield
    finally:
        if service.is_running:
            service.kill()


SCENARIOS: dict[str, Callable[[Task], Counter[str]]] = {
    "http": under_http, "dicom": under_dicom, "sending": under_sending, "workers": under_workers,
}  # fmt: skip


def sample() -> NDArray[np.uint16]:
    """A hand with a fracture."""
    with Image.open(ROOT / "samples/IMG0001380.jpg") as image:
        image.thumbnail((512, 512))
        return np.asarray(image.convert("L"), np.uint16) * 16


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--under", choices=SCENARIOS, default="http")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--folder", type=Path, help="new folder for data and logs; it is kept")
    given = parser.parse_args()
    with ExitStack() as stack:
        if given.folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = given.folder.resolve()
            folder.mkdir()
        weights, rng = given.weights.resolve(), random.Random(given.seed)
        task = Task(folder / "data", weights, given.kills, rng, sample())
        counts = SCENARIOS[given.under](task)
    print(", ".join(f"{name} {number}" for name, number in counts.items()))  # noqa: T201


if __name__ == "__main__":
    main()
