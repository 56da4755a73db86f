"""The parts of a running service, opened together and closed in the right order."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from .. import lock, version
from ..engine import Engine
from ..errors import UsageError
from ..studies import pseudonym
from . import accounts, schema, store
from . import tables as t
from .blobs import Blobs
from .database import Database, now_ms, sqlite_url
from .dicom_options import DicomOptions
from .judging import Judging
from .settings import ServiceConfig, engine_config
from .view_cache import ViewCache

log = logging.getLogger(__name__)


@dataclass
class Service:
    """A running service.

    Attributes:
        folder: The data folder.
        config: Settings.
        database: Everything but file contents.
        blobs: File contents.
        views: Rendered pictures.
        judging: Judges the waiting pictures; None if this process does not judge.
        engine: Number of the engine of ``judging``; None without one.
        dicom: Own AE title and certificate.
        setup_code: Creates the first administrator; None if there is a user.
    """

    folder: Path
    config: ServiceConfig
    database: Database
    blobs: Blobs
    views: ViewCache
    judging: Judging | None = None
    engine: int | None = None
    dicom: DicomOptions = field(default_factory=DicomOptions)
    setup_code: str | None = None

    def receive(self, arrival: store.Arrival) -> tuple[int, bool]:
        """Register a stored file; see :func:`.store.receive`. It is judged soon."""
        received = self.database.write(
            lambda c: store.receive(c, arrival, lambda sha256: self.blobs.path(sha256).exists())
        )
        self.wake()
        return received

    def wake(self) -> None:
        """Judge what has been received now, without waiting for the next check."""
        if self.judging is not None:
            self.judging.wake()

    def remove(self, picture: int, actor: str) -> None:
        """Delete a picture; see :func:`.store.remove`."""

        def unlink(sha256: str) -> None:
            self.blobs.remove(sha256)
            self.views.remove(sha256)

        self.database.write(lambda c: store.remove(c, picture, actor, unlink))

    @property
    def rate(self) -> float:
        """Pictures per second of late."""
        return self.judging.rate if self.judging is not None else 0.0


@contextmanager
def opened(
    folder: Path, weights: Path, config: ServiceConfig, *, database: str | None = None,
    judge: bool = True,
) -> Iterator[Service]:  # fmt: skip
    """Open a service, and close it at the end of the block.

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
    with ExitStack() as stack:
        if database is None:
            stack.enter_context(lock.exclusive(folder))
        opened_database = Database(database or sqlite_url(folder))
        stack.callback(opened_database.close)
        schema.upgrade(opened_database)
        blobs = Blobs(folder, config.reserve_bytes)
        if database is None:
            blobs.sweep()
            freed = opened_database.write(store.recover)
            if freed:
                log.warning("%d pictures were being read when the service ended", freed)
        service = Service(folder, config, opened_database, blobs, ViewCache(folder))
        if judge:
            _start_judging(service, weights, stack)
        if opened_database.write(accounts.needs_setup):
            service.setup_code = opened_database.write(accounts.new_setup_code)
        yield service


def _start_judging(service: Service, weights: Path, stack: ExitStack) -> None:
    """Open the active engine, or the given weights as the first one."""
    config = engine_config(service.config.run)
    with service.database.read() as connection:
        active = store.active_engine(connection)
    engine = _open_engine(weights, config)
    number = service.database.write(lambda c: register_engine(c, weights, engine, service.config))
    if active is not None and active.id != number:
        log.warning(
            "the weights differ from those of the active engine; they are a candidate, and "
            "verdicts come from %s", active.weights,
        )  # fmt: skip
        engine.close()
        engine, number = _open_engine(Path(active.weights), config), int(active.id)
        if engine_digest(engine, service.config) != active.digest:
            engine.close()
            raise UsageError(
                f"{active.weights}: the weights of the active engine have changed, expected those "
                "that its verdicts came from", "restore them, or promote the new ones",
            )  # fmt: skip
    stack.callback(engine.close)
    owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    service.engine = number
    service.judging = Judging(
        service.database, service.blobs, service.views, engine, number, owner,
        service.config.run.contour,
    )  # fmt: skip
    stack.callback(service.judging.stop)


def _open_engine(weights: Path, config: Any) -> Engine:
    return Engine.open(
        weights, config, rendered=True,
        study_of=lambda _, uid: pseudonym(uid) if uid else None,
    )  # fmt: skip


def engine_digest(engine: Engine, config: ServiceConfig) -> str:
    """Identity of weights and all settings that may change a verdict."""
    content = {
        "bundles": engine.digests,
        "settings": _judging_settings(config),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


_NOT_JUDGING = {
    "batch_size", "workers", "megapixels", "isolate", "timeout_per_file_s", "intra_op_threads",
    "heatmaps", "report", "fhir", "parquet", "dicom_out", "opacity", "csv_bom", "contour",
    "identifiers", "studies", "device", "precision",
}  # fmt: skip


def _judging_settings(config: ServiceConfig) -> dict[str, Any]:
    return config.run.model_dump(mode="json", exclude=_NOT_JUDGING)


def register_engine(connection: Any, weights: Path, engine: Engine, config: ServiceConfig) -> int:
    """Number of an engine, which is added if it is new: active if it is the first one."""
    digest = engine_digest(engine, config)
    known = connection.execute(select(t.engine).where(t.engine.c.digest == digest)).first()
    if known is not None:
        if known.weights != str(weights.resolve()):
            connection.execute(
                update(t.engine)
                .where(t.engine.c.id == known.id)
                .values(weights=str(weights.resolve()))
            )
        return int(known.id)
    first = store.active_engine(connection) is None
    key = connection.execute(
        insert(t.engine).values(
            digest=digest, weights=str(weights.resolve()),
            digests=engine.digests,
            settings=_judging_settings(config), version=version(),
            state="active" if first else "candidate", created_ms=now_ms(),
        )
    ).inserted_primary_key  # fmt: skip
    return int(key[0])
