"""A threaded pipeline: reads sources ahead, judges items in batches, delivers results.

Reader threads read files, or content in memory. A free lane takes all items that wait at that
moment, up to a batch: no item waits for a batch to fill, so an endless source gets its results as
its pictures arrive. The number of files and of items in flight is bounded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")  # a source, such as a path
T = TypeVar("T")  # an item of a source that has to be judged
R = TypeVar("R")  # a result

_JOIN_S = 2.0
"""Seconds to wait for a blocked source at the end; its thread ends with the process."""


@dataclass(frozen=True, slots=True)
class Result(Generic[R]):
    """A final result from a reader, which needs no judging."""

    value: R


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a flow.

    Attributes:
        readers: Number of threads that read.
        lanes: Number of threads that judge.
        batch: Maximum number of items that one lane judges together.
        files: Maximum number of sources that were taken and not fully delivered.
        items: Maximum number of items that were read and not delivered. Items of the source that
            is delivered next are counted separately, so that it never waits for the others.
    """

    readers: int
    lanes: int
    batch: int
    files: int
    items: int


@dataclass(slots=True)
class _File(Generic[R]):
    """One source.

    Attributes:
        done: Results, or the error in place of one, by number of the item.
        read: Number of items that were read.
        delivered: Number of results that were delivered.
        ended: Whether all items were read.
    """

    done: dict[int, R | BaseException] = field(default_factory=dict)
    read: int = 0
    delivered: int = 0
    ended: bool = False

    @property
    def finished(self) -> bool:
        return self.ended and self.delivered == self.read


class Flow(Generic[S, T, R]):
    """One pass of sources through readers and lanes.

    Args:
        read: From a source to its items, in order; called on reader threads.
        judge: From items to their results, in the same order; called on lanes.
        limits: See :class:`Limits`.
        ordered: Whether results come in the order of the sources, or as soon as they are ready.
        give_up: Called when the caller stops early, so that no reader delays the end.
    """

    def __init__(
        self,
        read: Callable[[S], Iterable[T | Result[R]]],
        judge: Callable[[Sequence[T]], Sequence[R]],
        limits: Limits,
        *,
        ordered: bool = True,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._read, self._judge, self._limits = read, judge, limits
        self._ordered, self._give_up = ordered, give_up
        self._changed = threading.Condition()
        self._files: dict[int, _File[R]] = {}
        self._to_read: deque[tuple[int, S]] = deque()
        self._to_judge: deque[tuple[int, int, T]] = deque()
        self._ready: deque[tuple[int, int]] = deque()
        self._in_flight = 0
        self._head = 0
        self._count: int | None = None
        self._stopped = False

    def results(self, sources: Iterable[S]) -> Generator[R, None, None]:
        """The results of all sources.

        Args:
            sources: A separate thread consumes them one by one when there is room.

        Raises:
            Exception: What ``sources``, ``read`` or ``judge`` raised, in place of the result.
        """
        work: list[tuple[str, Callable[[], None]]] = [("feed", lambda: self._feed(iter(sources)))]
        work += [("read", self._run_reader)] * self._limits.readers
        work += [("lane", self._run_lane)] * self._limits.lanes
        threads = [
            threading.Thread(target=target, name=f"fxpipe-{part}", daemon=True)
            for part, target in work
        ]
        try:
            for thread in threads:
                thread.start()
            while (result := self._next()) is not None:
                if isinstance(result[0], BaseException):
                    raise result[0]
                yield result[0]
        except BaseException:
            self._stop()
            self._give_up()
            raise
        finally:
            self._stop()
            for thread in filter(threading.Thread.is_alive, threads[1:]):
                thread.join()
            if threads[0].is_alive():
                threads[0].join(_JOIN_S)

    def _stop(self) -> None:
        """Start no new work; running reads and judgements finish."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # ------------------------------------------------------------------------- the caller

    def _next(self) -> tuple[R | BaseException] | None:
        """The next result; None at the end."""
        with self._changed:
            while True:
                place = self._available()
                if place is not None:
                    number, item = place
                    file = self._files[number]
                    result = file.done.pop(item)
                    file.delivered += 1
                    self._in_flight -= 1
                    self._forget_finished(number)
                    self._changed.notify_all()
                    return (result,)
                if self._count is not None and self._head >= self._count and not self._files:
                    return None
                self._changed.wait()

    def _available(self) -> tuple[int, int] | None:
        """Source and item of the next deliverable result; None if there is none yet."""
        if not self._ordered:
            return self._ready.popleft() if self._ready else None
        file = self._files.get(self._head)
        return (self._head, file.delivered) if file and file.delivered in file.done else None

    def _forget_finished(self, number: int) -> None:
        """Forget sources whose results are all delivered."""
        if self._ordered:
            while (file := self._files.get(self._head)) and file.finished:
                del self._files[self._head]
                self._head += 1
        elif self._files[number].finished:
            del self._files[number]
            self._head += 1  # in this mode, the number of finished sources

    # ------------------------------------------------------------------------- the threads

    def _feed(self, sources: Iterator[S]) -> None:
        """Take sources when there is room."""
        number = 0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or len(self._files) < self._limits.files
                )
                if self._stopped:
                    return
            fault: BaseException | None = None
            try:
                source = next(sources)
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001  (raised where the caller waits)
                fault = error
            with self._changed:
                self._files[number] = _File()
                if fault is None:
                    self._to_read.append((number, source))
                    del source  # it may be the content of a file: released while waiting
                number += 1
                self._changed.notify_all()
            if fault is not None:
                self._put(number - 1, Result(fault))
                self._end(number - 1)
                break
        with self._changed:
            self._count = number
            self._changed.notify_all()

    def _run_reader(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._to_read)
                if self._stopped:
                    return
                number, source = self._to_read.popleft()
            try:
                for item in self._read(source):
                    if not self._put(number, item):
                        return
                    del item  # released while the next one is read
            except BaseException as error:  # noqa: BLE001  (raised where the caller waits)
                self._put(number, Result(error))
            del source  # it may be the content of a file: released while waiting
            self._end(number)

    def _put(self, number: int, item: T | Result[R] | Result[BaseException]) -> bool:
        """Add one item when there is room; False when the flow is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(number))
            if self._stopped:
                return False
            file = self._files[number]
            place = number, file.read
            file.read += 1
            self._in_flight += 1
            if isinstance(item, Result):
                self._done(place, item.value)
            else:
                self._to_judge.append((*place, item))
            self._changed.notify_all()
            return True

    def _has_room(self, number: int) -> bool:
        limit = self._limits.items
        if self._in_flight < limit:
            return True
        file = self._files[number]
        return self._ordered and number == self._head and file.read - file.delivered < limit

    def _end(self, number: int) -> None:
        """Mark a source as fully read."""
        with self._changed:
            self._files[number].ended = True
            self._forget_finished(number)
            self._changed.notify_all()

    def _run_lane(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._to_judge)
                if self._stopped:
                    return
                size = min(self._limits.batch, len(self._to_judge))
                batch = [self._to_judge.popleft() for _ in range(size)]
            results: Sequence[R | BaseException]
            try:
                results = self._judge([item for _, _, item in batch])
                if len(results) != size:
                    raise RuntimeError(f"{len(results)} results for {size} items")
            except BaseException as error:  # noqa: BLE001  (raised where the caller waits)
                results = [error] * size
            with self._changed:
                for (number, item, _), result in zip(batch, results, strict=True):
                    self._done((number, item), result)
                self._changed.notify_all()

    def _done(self, place: tuple[int, int], result: R | BaseException) -> None:
        self._files[place[0]].done[place[1]] = result
        if not self._ordered:
            self._ready.append(place)
