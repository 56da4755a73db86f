"""Reads each file in a worker: what a decoder does to its process costs one row.

Workers are started by ``sys.executable`` and not forked, so that none has a thread, a lock or a
network session of the run; the first one while the networks are opened. A worker is busy with one
file at a time. It is killed when that takes too long, and replaced when it ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain

from ..clock import Clock
from ..errors import ImageError, UnsupportedError
from ..io import Room, check_size
from ..render import MOST_PX
from ..source import NamedBytes, Source
from . import wire
from .prepared import Item, Prepared, Wanted, after, unread
from .process import Process

_WORKER = f"{__package__}.worker"
_LOOK_S = 0.1
"""How often somebody looks whether a file takes too long."""

_AHEAD_BYTES = 2**24
"""Of one file's pictures, read before the run has come to them; the others wait in the file."""


class Isolated:
    """The reader with workers.

    Args:
        room: For pictures and files of all workers.
        timeout_s: How long a worker may be busy with one file.
        module: Whose ``main`` a worker runs.

    Raises:
        StartError: No worker can be started.
    """

    def __init__(self, room: Room, timeout_s: float, module: str = _WORKER) -> None:
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

    def read(self, source: Source, wanted: Wanted, clock: Clock) -> Iterable[Item]:
        """See :class:`.prepared.Reader`; of a file of many pictures the later ones wait in it."""
        refused = _refused(source)
        if refused is not None:
            return [refused]
        items = self._items(source, wanted, clock)
        first: list[Item] = []
        size = 0
        for item in items:
            first.append(item)
            size += _bytes(item)
            if size > _AHEAD_BYTES:
                return chain(first, items)
        return first

    def stop(self) -> None:
        """See :class:`.prepared.Reader`."""
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

    def _items(self, source: Source, wanted: Wanted, clock: Clock) -> Iterator[Item]:
        with ExitStack() as stack:
            room = stack.enter_context(ExitStack())
            room.enter_context(self._room.for_file(source))
            worker = stack.enter_context(self._worker())
            reading = _Reading(worker, source, wanted, clock, self._timeout_s)
            for step in reading.steps():
                # A worker that asks for room has let go of the picture before; and whoever takes
                # a picture may be slow to come back for the next one: others may have the room.
                room.close()
                if isinstance(step, int):
                    room.enter_context(self._room.for_file(source))
                    room.enter_context(self._room.for_picture(step))
                    reading.go_on()
                else:
                    yield step

    @contextmanager
    def _worker(self) -> Iterator[Process]:
        """A worker of one's own, started when none is idle."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is not None and worker.ended:
            worker.close()
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
            # Who is not done with its file (an error, or a consumer that left) is of no use.
            if worker.busy or worker.ended or self._stopped.is_set():
                worker.close()
            with self._lock:
                if worker.ended:
                    self._workers.discard(worker)
                else:
                    self._idle.append(worker)

    def _watch(self) -> None:
        """End workers that are busy for too long."""
        while not self._stopped.wait(_LOOK_S):
            with self._lock:
                workers = list(self._workers)
            for worker in workers:
                worker.kill_overdue()


@dataclass
class _Reading:
    """One file in the hands of a worker."""

    worker: Process
    source: Source
    wanted: Wanted
    clock: Clock
    timeout_s: float
    sha256: str | None = None
    failed_at: int | None = None

    def steps(self) -> Iterator[Item | int]:
        """Its pictures; and before each the number of pixels for which it wants room.

        A picture is told when its worker has let go of it. After a number, and before the next
        step, :meth:`go_on` has to be called.
        """
        started = time.perf_counter()
        spent_s = 0.0
        held: Item | None = None
        most_bytes = _most_bytes(self.wanted)
        self.worker.busy = True
        try:
            asked = time.monotonic()
            self._ask()
            spent_s += time.monotonic() - asked
            while True:
                asked = time.monotonic()
                message, arrays = self.worker.receive(self.timeout_s - spent_s, most_bytes)
                spent_s += time.monotonic() - asked
                kind = message["kind"]
                if kind == "read":
                    self.sha256 = str(message["sha256"])
                elif kind in ("picture", "unread"):
                    held = wire.unpacked(message, arrays, self.source, self.wanted)
                elif kind in ("room", "end", "fault"):
                    if held is not None:
                        self.failed_at = after(held.image)
                        yield held
                        held, started = None, time.perf_counter()
                    if kind == "room":
                        yield max(0, int(message["pixels"]))
                    elif kind == "end":
                        self._end(message)
                        return
                    else:
                        error = f"stumbled over ({message['error']})"
                        yield self._unread(error, started)
                else:
                    raise wire.WireError(f"found a message of kind {kind!r}")
        except (wire.WireError, *wire.MALFORMED):
            ending = self.worker.ending(self.timeout_s)
            if held is not None:
                self.failed_at = after(held.image)
                yield held
            yield self._unread(ending, started)

    def go_on(self) -> None:
        """Tell the worker that there is room."""
        self.worker.send({"kind": "room"})

    def _ask(self) -> None:
        message, content = wire.request(self.source, self.wanted)
        cpu = self.clock.timer is time.thread_time
        message |= {"cpu": cpu, "timeout_s": self.timeout_s}
        self.worker.send(message, content, self.timeout_s)

    def _end(self, message: wire.Message) -> None:
        self.clock.add({str(name): float(s) for name, s in message["seconds"].items()})
        self.worker.busy = False
        if message["last"]:
            self.worker.kill()

    def _unread(self, what: str, started: float) -> Item:
        words = f"{self.source.name}: found a file that {what}, expected a valid one"
        elapsed_ms = (time.perf_counter() - started) * 1000.0
        return unread(self.source, self.failed_at, self.sha256, words, elapsed_ms)


def _refused(source: Source) -> Item | None:
    """The outcome of content that is too large to be sent to a worker; None for all other."""
    if not isinstance(source, NamedBytes):
        return None  # its worker looks at it
    try:
        check_size(len(source.content), source.name)
    except ImageError as error:
        unsupported = isinstance(error, UnsupportedError)
        return unread(source, None, None, str(error), 0.0, unsupported=unsupported)
    return None


def _most_bytes(wanted: Wanted) -> int:
    """Of the arrays of one picture."""
    canvases = sum(4 * spec.height_px * spec.width_px for spec in wanted.preprocessings)
    return canvases + (MOST_PX**2 if wanted.rendered else 0)


def _bytes(item: Item) -> int:
    """Of the arrays of one picture."""
    if not isinstance(item, Prepared):
        return 0
    shown = 0 if item.rendered is None else item.rendered.pixels.nbytes
    return shown + sum(array.nbytes for array in item.arrays.values())
