"""Uses a service for a long time as clinics do, and prints whether anything grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import httpx
from load_clients import connected, headers, send, small
from load_figures import (
    MOST_MB,
    handles,
    memory_mb,
    p50,
    print_figure,
    threads,
)
from service_process import ServiceProcess

_SAMPLE_S = 2.0
_UPLOAD_S = 0.5
_GET_S = 0.1
_STREAMS = 5


@dataclass(frozen=True)
class Sample:
    """Resources of all processes of a service at one moment.

    Attributes:
        handles: Open file handles.
        threads: Threads.
        memory_mb: Memory, with shared pages counted once.
    """

    handles: int
    threads: int
    memory_mb: float


def soak(service: ServiceProcess, sender: str, reader: str, minutes: float) -> list[Sample]:
    """Upload, read and follow events for some minutes; print the first and the last samples.

    Args:
        service: A running service.
        sender: Token of a sender.
        reader: Token of a reader.
        minutes: How long.

    Returns:
        Samples, in order.
    """
    stop = threading.Event()
    counts = {"uploads": 0, "requests": 0, "event streams": 0, "faults": 0}

    def upload() -> None:
        with connected(service, sender) as client:
            while not stop.wait(_UPLOAD_S):
                number = counts["uploads"]
                send(client, small(number), f"soak-{number}")
                counts["uploads"] += 1

    def read() -> None:
        with connected(service, reader) as client:
            while not stop.wait(_GET_S):
                page = client.get("/pictures").json()["pictures"]
                for picture in page[:1]:
                    client.get(f"/pictures/{picture['id']}").raise_for_status()
                counts["requests"] += 2

    def follow() -> None:
        """Follow the events for a while, in one connection after the other."""
        while not stop.is_set():
            until = time.monotonic() + 1.0 + counts["event streams"] % 7
            with (
                suppress(httpx.ReadTimeout),
                httpx.stream(
                    "GET", f"{service.url}/api/v1/events", headers=headers(reader), timeout=5.0
                ) as answer,
            ):
                for _ in answer.iter_lines():
                    if time.monotonic() > until or stop.is_set():
                        break
            counts["event streams"] += 1

    def guarded(work: Callable[[], None]) -> None:
        while not stop.is_set():
            try:
                work()
            except (httpx.HTTPError, AssertionError):
                counts["faults"] += 1

    clients = [
        threading.Thread(target=guarded, args=(work,), daemon=True)
        for work in (upload, read, *[follow] * _STREAMS)
    ]
    for client in clients:
        client.start()
    samples, deadline = [], time.monotonic() + minutes * 60
    while time.monotonic() < deadline:
        time.sleep(_SAMPLE_S)
        pid = service.pid
        samples.append(Sample(handles(pid), threads(pid), memory_mb(pid)))
    stop.set()
    for client in clients:
        client.join()
    for name, count in counts.items():
        print_figure(name, count, "target 0" if name == "faults" else "")
    tenth = max(1, len(samples) // 10)
    for name in ("handles", "threads", "memory_mb"):
        first, last = (
            p50([float(getattr(one, name)) for one in part])
            for part in (samples[:tenth], samples[-tenth:])
        )
        print_figure(f"{name}, median of the last tenth", last, f"first tenth {first:.1f}")
    print_figure("memory at most, MB", max(s.memory_mb for s in samples), f"target < {MOST_MB:g}")
    return samples
