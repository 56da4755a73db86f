"""Accepts sources one by one, and returns a future for the results of each.

All sources share one :class:`~pipeline.threaded_pipeline.Flow`, so items of several callers are
judged together. An error in one source is raised by its own future, and the others continue. A
caller waits while the limit of files or bytes in flight is reached.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import closing
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

from .errors import BusyError
from .threaded_pipeline import Flow, Limits, Result

S = TypeVar("S")  # a source, such as a path
T = TypeVar("T")  # an item of a source that has to be judged
R = TypeVar("R")  # a result


@dataclass(eq=False, slots=True)
class _Job(Generic[S, R]):
    """One source.

    Attributes:
        source: The source; None once reading starts.
        size: Its size in memory in bytes.
        future: Future of all its results.
        results: Available results, by number of the item.
        error: First exception from the reader or the judge.
        done: Number of items that have a result or an error.
        items: Total number of items; None until all are read.
    """

    source: S | None
    size: int
    future: Future[list[R]] = field(default_factory=Future)
    results: dict[int, R] = field(default_factory=dict)
    error: Exception | None = None
    done: int = 0
    items: int | None = None


@dataclass(frozen=True, slots=True)
class _Item(Generic[S, T, R]):
    """One item of a source, which has to be judged."""

    job: _Job[S, R]
    number: int
    value: T


@dataclass(frozen=True, slots=True)
class _Answer(Generic[S, R]):
    """The result of one item, or the error in its place."""

    job: _Job[S, R]
    number: int
    value: R | Exception


@dataclass(frozen=True, slots=True)
class _End(Generic[S, R]):
    """All items of a source were read."""

    job: _Job[S, R]
    items: int


class Submissions(Generic[S, T, R]):
    """Accepts sources from any number of threads until it is closed.

    Its threads start with the first source.

    Args:
        read: From a source to its items, in order; called on reader threads.
        judge: From items to their results, in the same order; called on lanes.
        limits: See :class:`~pipeline.threaded_pipeline.Limits`; ``files`` bounds the sources in
            flight.
        size: From a source to its bytes in memory.
        max_bytes: A source waits while the sources in flight hold this many bytes or more, so the
            total can exceed it by one source.
        give_up: Called on close without waiting, so that no reader delays it.
    """

    def __init__(
        self,
        read: Callable[[S], Iterable[T | Result[R]]],
        judge: Callable[[Sequence[T]], Sequence[R]],
        limits: Limits,
        size: Callable[[S], int],
        max_bytes: int,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._read, self._judge, self._limits = read, judge, limits
        self._size, self._max_bytes, self._give_up = size, max_bytes, give_up
        self._changed = threading.Condition()
        self._queue: SimpleQueue[_Job[S, R] | None] = SimpleQueue()
        self._jobs: set[_Job[S, R]] = set()
        self._bytes = 0
        self._closed = self._abandoned = False
        self._thread: threading.Thread | None = None

    def submit(self, source: S, timeout: float | None = None) -> Future[list[R]]:
        """Accept one source.

        Args:
            source: It is released as soon as it is read.
            timeout: Seconds to wait while a limit is reached; None to wait without limit, 0 not to
                wait.

        Returns:
            A future of its results, in the order of its items. It raises what ``read`` or
            ``judge`` raised. A source whose future is cancelled before reading starts is not read.

        Raises:
            BusyError: A limit was reached during the whole timeout.
            RuntimeError: It is closed.
        """
        job: _Job[S, R] = _Job(source, self._size(source))
        with self._changed:
            has_room = self._changed.wait_for(lambda: self._closed or self._has_room(), timeout)
            if self._closed:
                raise RuntimeError("found a file submitted after the end, expected it before")
            if not has_room:
                raise BusyError(
                    f"found {len(self._jobs)} files of {self._bytes} bytes in flight, expected "
                    f"fewer than {self._limits.files} of less than {self._max_bytes} bytes",
                    "try again later",
                )
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="fxpipe-submissions", daemon=True
                )
                self._thread.start()
            self._jobs.add(job)
            self._bytes += job.size
            self._queue.put(job)  # under the lock, so that none follows the end marker
        return job.future

    def close(self, *, wait: bool = True) -> None:
        """Accept no more sources, and stop the threads.

        Args:
            wait: Whether to finish the submitted sources. Otherwise they are abandoned: their
                futures are cancelled or raise ``CancelledError``.
        """
        with self._changed:
            self._abandoned = self._abandoned or not wait
            if not self._closed:
                self._queue.put(None)
            self._closed = True
            self._changed.notify_all()
        if not wait:
            self._give_up()
        if self._thread is not None:
            self._thread.join()

    def _has_room(self) -> bool:
        return len(self._jobs) < self._limits.files and self._bytes < self._max_bytes

    def _run(self) -> None:
        """Deliver results until the end; every future gets a result or an exception."""
        try:
            self._deliver()
        except BaseException as error:
            with self._changed:
                self._closed, remaining = True, [*self._jobs]
            self._queue.put(None)  # the flow may still wait for the next source
            for job in remaining:
                job.error = job.error or RuntimeError(f"the engine ended ({type(error).__name__})")
                self._finish(job)
            raise

    def _deliver(self) -> None:
        flow: Flow[_Job[S, R], _Item[S, T, R], _Answer[S, R] | _End[S, R]] = Flow(
            self._read_job, self._judge_items, self._limits, ordered=False
        )
        with closing(flow.results(iter(self._queue.get, None))) as results:
            for part in results:
                job = part.job
                if isinstance(part, _End):
                    job.items = part.items
                else:
                    job.done += 1
                    if isinstance(part.value, Exception):
                        job.error = job.error or part.value
                    else:
                        job.results[part.number] = part.value
                if job.done == job.items:
                    self._finish(job)
                del job, part  # released while waiting for the next one

    def _finish(self, job: _Job[S, R]) -> None:
        with self._changed:
            self._jobs.remove(job)
            self._bytes -= job.size
            self._changed.notify_all()
        if job.future.cancelled():
            return
        if self._abandoned:
            job.future.set_exception(CancelledError())
        elif job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result([job.results[number] for number in range(job.done)])

    def _read_job(
        self, job: _Job[S, R]
    ) -> Iterator[_Item[S, T, R] | Result[_Answer[S, R] | _End[S, R]]]:
        number = 0
        source, job.source = job.source, None
        if self._abandoned:
            job.future.cancel()
        if source is not None and job.future.set_running_or_notify_cancel():
            try:
                for item in self._read(source):
                    if isinstance(item, Result):
                        yield Result(_Answer(job, number, item.value))
                    else:
                        yield _Item(job, number, item)
                    number += 1
                    del item  # released while the next one is read
            except Exception as error:  # noqa: BLE001  (raised by the future)
                yield Result(_Answer(job, number, error))
                number += 1
        yield Result(_End(job, number))

    def _judge_items(self, items: Sequence[_Item[S, T, R]]) -> list[_Answer[S, R]]:
        values: Sequence[R | Exception]
        try:
            values = self._judge([item.value for item in items])
            if len(values) != len(items):
                raise RuntimeError(f"{len(values)} results for {len(items)} items")
        except Exception as error:  # noqa: BLE001  (raised by the future of each)
            values = [error] * len(items)
        return [
            _Answer(item.job, item.number, value) for item, value in zip(items, values, strict=True)
        ]
