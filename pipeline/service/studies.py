"""Queues the DICOM objects of stable studies in the outbox."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import Connection, and_, exists, select, update

from ..errors import ImageError
from ..report.dicom.objects import Maker
from . import delivery, outbox, study_objects, worklist
from . import tables as t
from .application import Service
from .contents import ContentGoneError
from .database import now_ms
from .outbox import NewObject

log = logging.getLogger(__name__)

_MOST = 20
"""Maximum number of studies per pass."""
_RETRY_S = 30.0


class Studies:
    """Processes studies that have become stable, until :meth:`stop`.

    Args:
        service: An open service.
        queued: Called when objects were added to the outbox.
    """

    def __init__(self, service: Service, queued: Callable[[], None]) -> None:
        self._service, self._queued = service, queued
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fxpipe-studies", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the current study, then stop."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = max(0.1, min(1.0, self._service.config.stable_s / 4))
        while not self._stopped.wait(pause_s):
            try:
                with self._service.database.read() as connection:
                    due = stable(connection, self._service.config.stable_s)
                for study in due:
                    if self._stopped.is_set():
                        return
                    if queue_objects(self._service, study):
                        self._queued()
            except Exception as error:  # noqa: BLE001  (such as a full disk; retried)
                log.error("cannot prepare the objects of a study: %s", type(error).__name__)
                self._stopped.wait(_RETRY_S)


def stable(connection: Connection, quiet_s: float) -> list[int]:
    """Numbers of studies that have become stable.

    Args:
        connection: For reading.
        quiet_s: Required seconds without a new picture.
    """
    study, arrival = t.study.c, t.arrival.c
    unfinished = exists().where(
        and_(
            arrival.study_id == study.id, arrival.state.in_(("waiting", "reading")),
            arrival.deleted_ms.is_(None),
        )
    )  # fmt: skip
    return list(
        connection.scalars(
            select(study.id)
            .where(
                study.stable_ms.is_(None), study.last_seen_ms <= now_ms() - int(quiet_s * 1000),
                ~unfinished,
            )
            .order_by(study.last_seen_ms)
            .limit(_MOST)
        )
    )  # fmt: skip


def queue_objects(service: Service, study: int) -> int:
    """Mark a study as stable, and queue its objects for all peers that receive results.

    Args:
        service: An open service.
        study: Number of the study.

    Returns:
        Number of queued objects.

    Raises:
        OSError: Objects cannot be stored.
        SQLAlchemyError: The database cannot be used.
    """
    with service.database.read() as connection:
        seen = connection.scalar(select(t.study.c.last_seen_ms).where(t.study.c.id == study))
        shown = study_objects.shown(connection, study)
        peers = list(connection.scalars(select(t.peer.c.id).where(t.peer.c.send)))
    made = _objects(service, study, peers) if peers else []

    def write(connection: Connection) -> list[int]:
        current = connection.execute(
            select(t.study.c.last_seen_ms, t.study.c.stable_ms)
            .where(t.study.c.id == study)
            .with_for_update()
        ).first()
        if current is None or current.last_seen_ms != seen or current.stable_ms is not None:
            return []  # a picture has arrived in the meantime, or another process was faster
        if study_objects.shown(connection, study) != shown:
            return []  # results of a promoted engine are shown by now
        added = outbox.add(connection, study, made, peers, service.blobs.exists)
        if added:
            delivery.add_study_event(connection, study)
        connection.execute(update(t.study).where(t.study.c.id == study).values(stable_ms=now_ms()))
        worklist.add_event(connection, "study", study, {})
        return added

    try:
        added = service.database.write(write)
    except ContentGoneError:
        added = []  # the study remains due
    with service.database.read() as connection:
        unused = [o for o in made if not outbox.is_needed(connection, o.content.sha256)]
    for one in unused:
        service.unlink(one.content.sha256)
    return len(added)


def _objects(service: Service, study: int, peers: list[int]) -> list[NewObject]:
    """Objects that at least one peer does not have yet, with their contents stored.

    Pictures for which no object can be created are skipped.
    """
    with service.database.read() as connection:
        results = study_objects.judged(connection, study)
        judges = t.engine.c.id.in_({one.engine for one in results})
        engines = connection.execute(select(t.engine).where(judges)).all()
        complete = outbox.complete(connection, study, peers)
    runs = {row.id: study_objects.engine_run(row, service.config.run) for row in engines}
    makers = {number: Maker(run) for number, run in runs.items()}
    made = []
    for result in results:
        run, maker = runs[result.engine], makers[result.engine]
        try:
            for one in study_objects.objects(result, maker, run, service.blobs):
                if one.uid not in complete:
                    content = service.blobs.store(one.content)
                    made.append(NewObject(one.uid, one.kind.value, result.sha256, content))
        except (ImageError, FileNotFoundError) as error:
            log.warning(
                "%s: cannot create DICOM objects (%s)", result.sha256[:16], type(error).__name__
            )
    return made
