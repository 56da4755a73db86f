"""Processing of the waiting jobs of one engine.

One thread claims jobs and submits their contents to the engine; other threads store the results.
A job runs alone if its process ended during an earlier attempt, and fails after several attempts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from sqlalchemy import Connection

from ..domain import ImageRef
from ..engine import Engine
from ..outcome import Outcome, Status
from ..outcome_json import to_json
from ..report.page_row import to_row, view
from ..source import NamedBytes
from . import instances, job_queue
from .blobs import Blobs
from .database import Database
from .instances import Header
from .job_queue import Claim
from .results import NewResult, finish
from .view_cache import ViewCache

log = logging.getLogger(__name__)

_POLL_S = 1.0
_HEARTBEAT_S = 10.0
_YIELD_S = 0.2
_PAUSE_S = 5.0
"""Pause after an error of the device or the disk."""


@dataclass(frozen=True, slots=True)
class _Judged:
    claim: Claim
    future: Future[list[Outcome]]
    started: float


class Judging:
    """Processes jobs from its creation until :meth:`stop`.

    Args:
        database: Jobs and results.
        blobs: Stored files.
        views: Cache for rendered pictures.
        engine: The networks; the caller closes them after :meth:`stop`.
        number: Number of the engine in the database.
        owner: Name of this process, unique among the processes that use the database.
        level: Share of a heatmap's maximum at which its contour is drawn.
        count: Called with the seconds from the claim of each file to its stored result.
        yields: Returns whether to claim no jobs at present, because the active engine is busy.

    Attributes:
        fault: Message of the last error of device or disk; None without a current error.
    """

    def __init__(
        self, database: Database, blobs: Blobs, views: ViewCache, engine: Engine, number: int,
        owner: str, level: float, count: Callable[[float], None] = lambda _: None,
        yields: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.fault: str | None = None
        self._database, self._blobs, self._views = database, blobs, views
        self._engine, self._number, self._owner, self._level = engine, number, owner, level
        self._count = count
        self._limit, self._yields = max(2, engine.limits.files), yields
        self._wake = threading.Condition()
        self._woken = self._stopping = False
        self._in_flight = 0
        self._done: SimpleQueue[_Judged | None] = SimpleQueue()
        self._rate = _Rate()
        self._threads = [
            threading.Thread(target=target, name=f"fxpipe-{name}", daemon=True)
            for name, target in (
                ("claims", self._claim_all), ("results", self._store_all),
                ("heartbeat", self._renew_all),
            )
        ]  # fmt: skip
        for thread in self._threads:
            thread.start()

    @property
    def rate(self) -> float:
        """Recent pictures per second; 0 before the first picture."""
        return self._rate.value

    @property
    def is_busy(self) -> bool:
        """Whether jobs are running."""
        return self._in_flight > 0

    def wake(self) -> None:
        """Check for jobs immediately."""
        with self._wake:
            self._woken = True
            self._wake.notify_all()

    def stop(self) -> None:
        """Finish the running jobs, and claim no more."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._threads[0].join()
        self._done.put(None)
        for thread in self._threads[1:]:
            thread.join()

    def _claim_all(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._free() > 0)
                if self._stopping:
                    self._wake.wait_for(lambda: self._in_flight == 0)
                    return
                self._woken, free = False, self._free()
                if self._yields():
                    self._wake.wait_for(lambda: self._stopping, _YIELD_S)
                    continue
            try:
                claims = self._database.write(
                    lambda c, n=free: job_queue.claim(c, self._number, self._owner, n)  # type: ignore[misc]
                )
            except Exception as error:  # noqa: BLE001  (such as a full disk; retried)
                self._pause("cannot claim jobs", error)
                continue
            for claim in claims:
                self._submit(claim)
            if not claims:
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping or self._woken, _POLL_S)

    def _free(self) -> int:
        return self._limit - self._in_flight

    def _submit(self, claim: Claim) -> None:
        if claim.blame >= job_queue.MOST_BLAME:
            self._give_up(claim)
            return
        alone, started = claim.blame > 0, time.monotonic()
        if alone:
            with self._wake:
                self._wake.wait_for(lambda: self._in_flight == 0)
        with self._wake:
            self._in_flight += 1
        try:
            content = self._blobs.read(claim.sha256)
            future = self._engine.submit(NamedBytes(claim.name or "picture", content))
        except Exception as error:  # noqa: BLE001  (stored as the result)
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda f: self._done.put(_Judged(claim, f, started)))
        if alone:
            with self._wake:
                self._wake.wait_for(lambda: self._in_flight == 0)

    def _give_up(self, claim: Claim) -> None:
        name = claim.name or "picture"
        error = (
            f"{name}: the service ended several times while it read this file, expected a file "
            "that can be read"
        )
        with self._wake:
            self._in_flight += 1
        future: Future[list[Outcome]] = Future()
        future.set_result([_failed(claim, error)])
        self._done.put(_Judged(claim, future, time.monotonic()))

    def _store_all(self) -> None:
        while (judged := self._done.get()) is not None:
            try:
                self._store(judged)
            finally:
                with self._wake:
                    self._in_flight -= 1
                    self._wake.notify_all()

    def _store(self, judged: _Judged) -> None:
        claim = judged.claim
        try:
            outcomes = judged.future.result()
        except OSError as error:
            is_last = claim.blame + job_queue.CRASHED >= job_queue.MOST_BLAME
            if not (is_last and self._blobs.is_available()):
                blame = job_queue.CRASHED if self._blobs.is_available() else 0
                self._return(claim, "cannot read the content", error, blame)
                return
            reason = error.strerror or type(error).__name__
            text = f"{claim.name or 'picture'}: cannot read the stored content ({reason})"
            outcomes = [_failed(claim, text)]
        except BaseException as error:  # noqa: BLE001  (device error, or the engine is closed)
            self._return(claim, "cannot judge", error)
            return
        identity = next((o.identity for o in outcomes if o.identity), None)
        results = [self._result(outcome) for outcome in outcomes]
        for one, outcome in zip(results, outcomes, strict=True):
            if outcome.rendered is not None:
                self._views.put(claim.sha256, one.frame, view(outcome.rendered))
        try:
            header = self._header(claim.sha256, identity)
            stored = self._database.write(lambda c: _finish(c, claim, results, identity, header))
        except Exception as error:  # noqa: BLE001  (such as a full disk)
            self._return(claim, "cannot store the result", error)
            return
        if not stored:  # perhaps deleted meanwhile; if not, views are rendered again on demand
            self._views.remove(claim.sha256)
        self.fault = None
        self._rate.count(len(results))
        self._count(time.monotonic() - judged.started)

    def _header(self, sha256: str, identity: Mapping[str, str] | None) -> Header | None:
        """Header of a DICOM file, unless it is already stored."""
        if not identity:
            return None
        with self._database.read() as connection:
            if instances.is_registered(connection, sha256):
                return None
        return instances.read_header(self._blobs.path(sha256))

    def _result(self, outcome: Outcome) -> NewResult:
        row = to_row(outcome, Path(), self._level)
        leading = outcome.leading
        return NewResult(
            frame=-1 if outcome.image.frame is None else outcome.image.frame,
            status=outcome.status.value, answer=row["answer"],
            region=leading.region if leading else None,
            probability=leading.probability if leading else None,
            outcome=to_json(outcome), row=row,
        )  # fmt: skip

    def _return(self, claim: Claim, what: str, error: BaseException, blame: int = 0) -> None:
        """Return a job to the queue; ``blame`` is above 0 if its file is the cause."""
        self._pause(what, error)
        try:
            self._database.write(
                lambda c: job_queue.give_back(c, claim, f"{what} ({type(error).__name__})", blame)
            )
        except Exception:  # noqa: BLE001  (the next start returns the job)
            log.warning("job %d: cannot return it", claim.job)

    def _pause(self, what: str, error: BaseException) -> None:
        self.fault = f"{what} ({type(error).__name__})"
        if not self._stopping:
            log.error("%s: %s", what, error)
            time.sleep(_PAUSE_S)

    def _renew_all(self) -> None:
        if self._database.is_sqlite:
            return
        while True:
            with self._wake:
                if self._wake.wait_for(lambda: self._stopping, _HEARTBEAT_S):
                    return
            try:
                self._database.write(lambda c: job_queue.renew(c, self._owner))
            except Exception as error:  # noqa: BLE001  (retried)
                log.warning("cannot renew leases (%s)", type(error).__name__)


def _failed(claim: Claim, error: str) -> Outcome:
    image = ImageRef.of(NamedBytes(claim.name or "picture", b""), None, claim.sha256)
    return Outcome(image=image, status=Status.FAILED, error=error)


def _finish(
    connection: Connection, claim: Claim, results: list[NewResult],
    identity: Mapping[str, str] | None, header: Header | None,
) -> list[int]:  # fmt: skip
    """Numbers of the stored results; none if they were discarded."""
    stored = finish(connection, claim, results, identity)
    if stored and header is not None:
        instances.register(connection, claim.sha256, header)
    return stored


class _Rate:
    """Exponential mean of the pictures per second."""

    def __init__(self) -> None:
        self.value = 0.0
        self._last = time.monotonic()

    def count(self, pictures: int) -> None:
        """Count pictures that were completed now."""
        now = time.monotonic()
        seconds, self._last = max(now - self._last, 1e-3), now
        if seconds > _PAUSE_S:  # after a pause
            return
        weight = min(1.0, seconds / 10.0)
        self.value += weight * (pictures / seconds - self.value)
