"""Retention: an hourly task deletes pictures that exceed the maximum age of a rule.

Pictures under a legal hold are kept. One transaction marks the picture as deleted and deletes its
results, a second one deletes its file; the next pass completes an interrupted deletion.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, and_, false, func, or_, select

from . import tables as t
from .arrivals import HeldError
from .database import now_ms
from .rules import expired

if TYPE_CHECKING:
    from .application import Service

log = logging.getLogger(__name__)

ACTOR = "retention"
EVERY_S = 3600.0
_BATCH = 200
_OLD_S = 86_400.0
"""Age of a file without a database row above which it is deleted as unfinished."""


def _is_due(connection: Connection, now: int) -> ColumnElement[bool]:
    """Condition of the arrivals that a rule deletes."""
    rules = connection.execute(select(t.rule.c.days, t.rule.c.state)).all()
    return or_(false(), *(and_(*expired(rule.days, rule.state, now)) for rule in rules))


def due(connection: Connection) -> int:
    """Number of pictures that the rules would delete now; deletes nothing."""
    query = select(func.count()).select_from(t.arrival).where(_is_due(connection, now_ms()))
    return int(connection.scalar(query) or 0)


class Retention:
    """Applies the rules every hour, from its creation until :meth:`stop`.

    Args:
        service: An open service.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fxpipe-retention", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current picture."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self.run()
            except Exception as error:  # noqa: BLE001  (retried in an hour)
                log.warning("retention: %s", type(error).__name__)
            if self._stopping.wait(EVERY_S):
                return

    def run(self) -> int:
        """Delete due pictures, complete interrupted deletions; return the number of pictures."""
        count = 0
        for number in self._numbers():
            if self._stopping.is_set():
                break
            try:
                self._service.remove(number, ACTOR)
            except HeldError:
                continue  # since the query
            count += 1
        if count:
            log.info("retention: %d pictures deleted", count)
        self._complete()
        return count

    def _numbers(self) -> Iterator[int]:
        """Pictures that are due, in batches, so that no query stays open."""
        now, last = now_ms(), 0
        while True:
            with self._service.database.read() as connection:
                query = (
                    select(t.arrival.c.id)
                    .where(_is_due(connection, now), t.arrival.c.id > last)
                    .order_by(t.arrival.c.id)
                    .limit(_BATCH)
                )
                numbers = list(connection.scalars(query))
            if not numbers:
                return
            yield from numbers
            last = numbers[-1]

    def _complete(self) -> None:
        """Delete files of deleted pictures and of interrupted uploads."""
        service, oldest = self._service, time.time() - _OLD_S
        for sha256 in service.blobs.all():
            if self._stopping.is_set():
                return
            with service.database.read() as connection:
                row = connection.execute(
                    select(t.blob.c.deleted_ms).where(t.blob.c.sha256 == sha256)
                ).first()
            is_left_over = row is None and service.blobs.is_older(sha256, oldest)
            if is_left_over or (row is not None and row.deleted_ms is not None):
                service.unlink(sha256)
        service.blobs.sweep(oldest)
