"""Reads each file in a worker process: a decoder crash affects only one row.

Workers are started with ``sys.executable`` and not forked, so they inherit no thread, lock or
network session of the run. The first one starts while the networks are opened. A worker reads one
file at a time. It is killed on timeout and replaced when it has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain

from ..errors import ImageError, UnsupportedError
from ..io import MemoryBudget, check_size
from ..render import MOST_PX
from ..source import NamedBytes, Source
from ..timing import Clock
from . import messages
from .prepared_picture import Item, Prepared, ReadOptions, next_frame, unread
from .worker_process import Process

log = logging.getLogger(__name__)

_WORKER = f"{__package__}.worker"
_POLL_S = 0.1
"""Seconds between checks for overdue workers."""

_READ_AHEAD_BYTES = 2**24
"""Most bytes of one file's pictures to read ahead; later pictures are read on demand."""


class IsolatedReader:
    """A reader that uses worker processes.

    Args:
        room: Memory budget for the pictures and files of all workers.
        timeout_s: Seconds that a worker may spend on one file.
        module: Name of the module whose ``main`` a worker runs.

    Raises:
        StartError: No worker can be started.
    """

    def __init__(self, room: MemoryBudget, timeout_s: float, module: str = _WORKER) -> None:
        self._room = room
        self._module = module
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        first = Process(module)
        self._workers = {first}
        self._idle = [first]
        self._watcher = threading.Thread(target=self._watch, name="fxpipe-watch", daemon=True)
        self._watcher.start()

    def read(self, source: Source, options: ReadOptions, clock: Clock) -> Iterable[Item]:
        """See :class:`.prepared_picture.Reader`; reads later pictures of a large file on demand."""
        rejection = _rejection(source)
        if rejection is not None:
            return [rejection]
        items = self._items(source, options, clock)
        first: list[Item] = []
        size = 0
        for item in items:
            first.append(item)
            size += _array_bytes(item)
            if size > _READ_AHEAD_BYTES:
                return chain(first, items)
        return first

    def stop(self) -> None:
        """See :class:`.prepared_picture.Reader`."""
        self._stopped.set()
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.kill()
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()
        self._watcher.join()

    def _items(self, source: Source, options: ReadOptions, clock: Clock) -> Iterator[Item]:
        with ExitStack() as stack:
            room = stack.enter_context(ExitStack())
            room.enter_context(self._room.for_file(source))
            worker = stack.enter_context(self._worker())
            reading = _Reading(worker, source, options, clock, self._timeout_s)
            for step in reading.steps():
                # A worker that requests room has released its previous picture. The consumer may
                # be slow to request the next picture, so other workers may use the room.
                room.close()
                if isinstance(step, int):
                    room.enter_context(self._room.for_file(source))
                    room.enter_context(self._room.for_picture(step))
                    reading.resume()
                else:
                    yield step

    @contextmanager
    def _worker(self) -> Iterator[Process]:
        """Reserve a worker; starts a new one if none is idle."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is not None and worker.ended:
            worker.close()
            log.warning("worker %d %s between two files; it is replaced", worker.pid, worker.exit)
            with self._lock:
                self._workers.discard(worker)
            worker = None
        if worker is None:
            worker = Process(self._module)
            with self._lock:
                self._workers.add(worker)
        if self._stopped.is_set():
            worker.kill()
        try:
            worker.wait_ready()
            yield worker
        finally:
            # A worker that has not finished its file (an error, or a consumer that stopped
            # early) cannot be reused.
            if worker.busy or worker.ended or self._stopped.is_set():
                worker.close()
            with self._lock:
                if worker.ended:
                    self._workers.discard(worker)
                else:
                    self._idle.append(worker)

    def _watch(self) -> None:
        """Kill overdue workers until the reader stops."""
        while not self._stopped.wait(_POLL_S):
            with self._lock:
                workers = list(self._workers)
            for worker in workers:
                worker.kill_overdue()


@dataclass
class _Reading:
    """One file that a worker reads."""

    worker: Process
    source: Source
    options: ReadOptions
    clock: Clock
    timeout_s: float
    sha256: str | None = None
    failed_at: int | None = None

    def steps(self) -> Iterator[Item | int]:
        """Yield the pictures, and before each one the number of pixels that need room.

        A picture is yielded after its worker has released it. After a number, the caller must
        call :meth:`resume` before the next step.
        """
        started = time.perf_counter()
        spent_s = 0.0
        pending: Item | None = None
        max_bytes = _max_bytes(self.options)
        self.worker.busy = True
        try:
            sent = time.monotonic()
            self._send_request()
            spent_s += time.monotonic() - sent
            while True:
                sent = time.monotonic()
                message, arrays = self.worker.receive(self.timeout_s - spent_s, max_bytes)
                spent_s += time.monotonic() - sent
                kind = message["kind"]
                if kind == "read":
                    self.sha256 = str(message["sha256"])
                elif kind in ("picture", "unread"):
                    pending = messages.unpacked(message, arrays, self.source, self.options)
                elif kind in ("room", "end", "fault"):
                    if pending is not None:
                        self.failed_at = next_frame(pending.image)
                        yield pending
                        pending, started = None, time.perf_counter()
                    if kind == "room":
                        yield max(0, int(message["pixels"]))
                    elif kind == "end":
                        self._end(message)
                        return
                    else:
                        error = f"caused an internal error ({message['error']})"
                        yield self._unread(error, started)
                else:
                    raise messages.MessageError(f"found a message of kind {kind!r}")
        except (messages.MessageError, *messages.MALFORMED):
            ending = self.worker.ending(self.timeout_s)
            log.info(
                "%a: worker %d %s after %.1f s; it is replaced",
                self.source.name, self.worker.pid, self.worker.exit,
                time.perf_counter() - started,
            )  # fmt: skip
            if pending is not None:
                self.failed_at = next_frame(pending.image)
                yield pending
            yield self._unread(ending, started)

    def resume(self) -> None:
        """Notify the worker that room is available."""
        self.worker.send({"kind": "room"})

    def _send_request(self) -> None:
        message, content = messages.request(self.source, self.options)
        cpu = self.clock.timer is time.thread_time
        message |= {"cpu": cpu, "timeout_s": self.timeout_s}
        self.worker.send(message, content, self.timeout_s)

    def _end(self, message: messages.Message) -> None:
        self.clock.add({str(name): float(s) for name, s in message["seconds"].items()})
        self.worker.busy = False
        if message["last"]:
            log.info(
                "%a: worker %d is replaced, to return its memory",
                self.source.name, self.worker.pid,
            )  # fmt: skip
            self.worker.kill()

    def _unread(self, reason: str, started: float) -> Item:
        message = f"{self.source.name}: found a file that {reason}, expected a valid one"
        elapsed_ms = (time.perf_counter() - started) * 1000.0
        return unread(self.source, self.failed_at, self.sha256, message, elapsed_ms)


def _rejection(source: Source) -> Item | None:
    """The outcome of content that is too large to send to a worker; None for other sources."""
    if not isinstance(source, NamedBytes):
        return None  # the worker checks the size of a file
    try:
        check_size(len(source.content), source.name)
    except ImageError as error:
        unsupported = isinstance(error, UnsupportedError)
        return unread(source, None, None, str(error), 0.0, unsupported=unsupported)
    return None


def _max_bytes(options: ReadOptions) -> int:
    """Maximum size of the arrays of one picture."""
    canvases = sum(4 * spec.height_px * spec.width_px for spec in options.preprocessings)
    return canvases + (MOST_PX**2 if options.rendered else 0)


def _array_bytes(item: Item) -> int:
    """Size of the arrays of one picture."""
    if not isinstance(item, Prepared):
        return 0
    rendered_bytes = 0 if item.rendered is None else item.rendered.pixels.nbytes
    return rendered_bytes + sum(array.nbytes for array in item.arrays.values())
