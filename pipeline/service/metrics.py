"""Prometheus metrics. Labels have fixed sets of values; none identifies a patient or a user."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection, func, select

from ..report.page_row import URGENCY
from . import engine_state, job_queue
from . import tables as t
from .database import Database, now_ms

_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
OUTBOX = ("waiting", "sent", "failed", "attention")


class Metrics:
    """Metrics of a service.

    Args:
        database: Pictures, results, jobs and outbox.
        folder: Folder whose disk is measured.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_DatabaseCollector(database, folder))
        self._judging = Histogram(
            "fxpipe_judging_seconds", "Seconds from the claim of a file to its stored result.",
            registry=self._registry, buckets=_BUCKETS,
        )  # fmt: skip

    def judged(self, seconds: float) -> None:
        """Count a file that was judged by this process."""
        self._judging.observe(seconds)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self._registry)


class _DatabaseCollector:
    """Reads metrics from the database, so that counters continue after a restart.

    Only rows added since the last call are counted, because rows are never deleted.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database, self._folder = database, folder
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._judged: Counter[str] = Counter()
        self._last_arrival = self._last_result = 0

    def collect(self) -> Iterator[Metric]:
        """See prometheus-client."""
        with self._lock, self._database.read() as connection:
            self._count(connection)
            yield _counter(
                "fxpipe_pictures_received", "Pictures received, by source.", "source",
                {source: self._received[source] for source in job_queue.PRIORITY},
            )  # fmt: skip
            yield _counter(
                "fxpipe_pictures_judged", "Results, by answer; failed is one of them.", "answer",
                {answer: self._judged[answer] for answer in URGENCY},
            )  # fmt: skip
            yield from _queue(connection)
            states = select(t.outbox.c.state, func.count()).group_by(t.outbox.c.state)
            counts: dict[str, int] = dict(connection.execute(states).all())
            yield _gauge(
                "fxpipe_outbox_objects", "DICOM objects to send, by state.", "state",
                {state: counts.get(state, 0) for state in OUTBOX},
            )  # fmt: skip
        free = GaugeMetricFamily("fxpipe_disk_free_bytes", "Free space of the data folder's disk.")
        free.add_metric([], shutil.disk_usage(self._folder).free)
        yield free

    def describe(self) -> list[Metric]:
        """Return no descriptions, so that registration does not read the database."""
        return []

    def _count(self, connection: Connection) -> None:
        arrival, result = t.arrival.c, t.result.c
        last = connection.scalar(select(func.max(arrival.id))) or 0
        new = arrival.id > self._last_arrival, arrival.id <= last
        query = select(arrival.source, func.count()).where(*new).group_by(arrival.source)
        self._received.update(dict(connection.execute(query).all()))
        self._last_arrival = last
        last = connection.scalar(select(func.max(result.id))) or 0
        new = result.id > self._last_result, result.id <= last
        query = select(result.answer, func.count()).where(*new).group_by(result.answer)
        self._judged.update(dict(connection.execute(query).all()))
        self._last_result = last


def _queue(connection: Connection) -> Iterator[Metric]:
    active = engine_state.active_engine(connection)
    engine = 0 if active is None else int(active.id)
    jobs = GaugeMetricFamily("fxpipe_jobs_waiting", "Files that wait for the active engine.")
    jobs.add_metric([], job_queue.waiting(connection, engine))
    yield jobs
    oldest = connection.scalar(
        select(t.job.c.created_ms)
        .where(t.job.c.engine_id == engine, t.job.c.state == "waiting")
        .order_by(t.job.c.id)
        .limit(1)
    )
    age_s = 0.0 if oldest is None else max(0, now_ms() - oldest) / 1000
    age = GaugeMetricFamily("fxpipe_oldest_waiting_seconds", "Age of the oldest waiting file.")
    age.add_metric([], age_s)
    yield age


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
