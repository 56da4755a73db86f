"""The parts of a running service, with their start and shutdown order."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .. import lock
from ..errors import StartError
from . import accounts, arrivals, job_queue, schema
from .blobs import Blobs
from .database import Database, network_file_system, sqlite_url
from .dicom_options import DicomOptions
from .engines import Engines
from .judging import Judging
from .metrics import Metrics
from .settings import ServiceConfig
from .view_cache import ViewCache

if TYPE_CHECKING:
    from .watch import Watcher

log = logging.getLogger(__name__)

CRASHED = "FXPIPE_CRASHED"
"""Environment variable in which the supervisor reports that the previous process crashed."""
OWNER = "FXPIPE_OWNER"
"""Environment variable with the name that the supervisor gives to all its child processes."""


@dataclass
class Service:
    """A running service.

    Attributes:
        folder: The data folder.
        config: Settings.
        database: Everything except file contents.
        blobs: File contents.
        views: Rendered pictures.
        engines: Open engines; None if this process does not judge.
        metrics: Figures for Prometheus.
        watchers: Watched folders.
        dicom: Own AE title and certificate.
        setup_code: Code for the creation of the first administrator; None if a user exists.
    """

    folder: Path
    config: ServiceConfig
    database: Database
    blobs: Blobs
    views: ViewCache
    engines: Engines | None = None
    metrics: Metrics = field(init=False)
    watchers: list[Watcher] = field(default_factory=list)
    dicom: DicomOptions = field(default_factory=DicomOptions)
    setup_code: str | None = None

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.database, self.folder)

    @property
    def judging(self) -> Judging | None:
        """Job processing of the active engine; None if this process does not judge."""
        active = None if self.engines is None else self.engines.active
        return None if active is None else active.judging

    def receive(self, arrival: arrivals.Arrival) -> tuple[int, bool]:
        """Register a stored file; see :func:`.arrivals.receive`. Wakes the engines."""
        received = self.database.write(lambda c: arrivals.receive(c, arrival, self.blobs.exists))
        self.wake()
        return received

    def wake(self) -> None:
        """Check for new jobs immediately."""
        if self.engines is not None:
            self.engines.wake()

    def remove(self, picture: int, actor: str) -> None:
        """Delete a picture, and its file if unused: :func:`.arrivals.remove`."""
        for sha256 in self.database.write(lambda c: arrivals.remove(c, picture, actor)):
            self.unlink(sha256)

    def unlink(self, sha256: str) -> None:
        """Delete file and rendered pictures of deleted content: :func:`.arrivals.unlink`."""

        def remove_file(digest: str) -> None:
            self.blobs.remove(digest)
            self.views.remove(digest)

        self.database.write(lambda c: arrivals.unlink(c, sha256, remove_file))

    @property
    def rate(self) -> float:
        """Recent pictures per second."""
        return self.judging.rate if self.judging is not None else 0.0


@contextmanager
def opened(
    folder: Path, weights: Path, config: ServiceConfig, *, database: str | None = None,
    judge: bool = True,
) -> Iterator[Service]:  # fmt: skip
    """Open a service for the duration of the block.

    Args:
        folder: The data folder, made if missing. With SQLite, only one process may use it.
        weights: Weights folder. It becomes the active engine if it is the first one; other
            weights become a candidate, and the active engine stays.
        config: Settings.
        database: URL of the database; None for SQLite in the data folder.
        judge: Whether this process judges pictures.

    Raises:
        UsageError: Another process uses the data folder.
        StartError: Database or weights cannot be opened.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if database is None and (kind := network_file_system(folder)):
        raise StartError(
            f"{folder}: SQLite cannot be used on a network share ({kind})",
            "choose a folder on a local disk, or use PostgreSQL with --database",
        )
    with ExitStack() as stack:
        if database is None:
            stack.enter_context(lock.exclusive(folder))
        opened_database = Database(database or sqlite_url(folder))
        stack.callback(opened_database.close)
        schema.upgrade(opened_database)
        blobs = Blobs(folder, config.reserve_bytes)
        if database is None:
            blobs.sweep()
        owner = f"{socket.gethostname()[:32]}-{os.environ.get(OWNER) or secrets.token_hex(8)}"
        if judge:
            blame = job_queue.CRASHED if os.environ.get(CRASHED) else job_queue.KILLED
            lost = None if database is None else owner
            freed = opened_database.write(lambda c: job_queue.recover(c, blame, lost))
            if freed:
                log.warning("%d pictures were in progress when the service ended", freed)
        service = Service(folder, config, opened_database, blobs, ViewCache(folder))
        if judge:
            service.engines = Engines(
                opened_database, blobs, service.views, config, owner, service.metrics.judged
            )
            stack.callback(service.engines.close)
            service.engines.start(weights)
        if opened_database.write(accounts.needs_setup):
            service.setup_code = opened_database.write(accounts.new_setup_code)
        yield service
