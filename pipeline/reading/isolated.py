"""Reads each file in a worker: what a decoder does to its process costs one row.

Workers are started by ``sys.executable`` and not forked, so that none has a thread, a lock or a
network session of the run; the first one while the networks are opened. A worker is busy with one
file at a time. It is killed when that takes too long, and replaced when it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from .. import __file__ as package
from ..clock import Clock
from ..errors import StartError
from ..io import Room
from ..render import MOST_PX
from . import wire
from .prepared import Item, Prepared, Wanted, unread

# The worker must be this very package, wherever it was found.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "import importlib; sys.exit(importlib.import_module(sys.argv[2]).main())"
)
_WORKER = f"{__package__}.worker"
_START_S = 120.0
_DYING_S = 2.0
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_PIPE_BYTES = 2**20 if sys.platform == "linux" else -1
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
        first = _Worker(module)
        self._workers = {first}
        self._idle = [first]
        self._watcher = threading.Thread(target=self._watch, name="fxpipe-watch", daemon=True)
        self._watcher.start()

    def read(self, path: Path, wanted: Wanted, clock: Clock) -> Iterable[Item]:
        """See :class:`.prepared.Reader`; of a file of many pictures the later ones wait in it."""
        items = self._items(path, wanted, clock)
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

    def _items(self, path: Path, wanted: Wanted, clock: Clock) -> Iterator[Item]:
        with ExitStack() as stack:
            files = stack.enter_context(ExitStack())
            files.enter_context(self._room.for_file(path))
            worker = stack.enter_context(self._worker())
            reading = _Reading(worker, path, wanted, clock, self._timeout_s)
            pictures = stack.enter_context(ExitStack())
            for step in reading.steps():
                # A worker that asks for room has let go of the picture before.
                pictures.close()
                if isinstance(step, int):
                    pictures.enter_context(self._room.for_picture(step))
                    reading.go_on()
                else:
                    # Whoever takes this may be slow to come back: others may have the room.
                    files.close()
                    yield step
                    files.enter_context(self._room.for_file(path))

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        """A worker of one's own, started when none is idle."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is not None and worker.ended:
            worker.close()
            with self._lock:
                self._workers.discard(worker)
            worker = None
        if worker is None:
            worker = _Worker(self._module)
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


class _Worker:
    """One worker process, started with the instance.

    Args:
        module: Whose ``main`` it runs.

    Attributes:
        busy: Whether it has a file and has not said that it is done with it.

    Raises:
        StartError: It cannot be started.
    """

    def __init__(self, module: str) -> None:
        self.busy = False
        self._ready = self._overdue = False
        self._deadline: float | None = None
        self._lock = threading.Lock()
        paths = [path or os.curdir for path in sys.path]
        options: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
        try:
            self._process = subprocess.Popen(
                # -P: no module of the working folder may stand before the standard library's.
                [sys.executable, "-P", "-c", _BOOT, json.dumps(paths), module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_ONE_THREAD},
                pipesize=_PIPE_BYTES,
                **options,
            )
        except OSError as error:
            raise _cannot_start(error.strerror or type(error).__name__) from error
        self._requests = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)

    @property
    def ended(self) -> bool:
        """Whether it is no more."""
        return self._process.poll() is not None

    def wait_ready(self) -> None:
        """Wait until it has imported what it needs.

        Raises:
            StartError: It ends or takes too long, or is of another installation.
        """
        if self._ready:
            return
        try:
            message, _ = self.receive(_START_S)
            found = message.get("package")
        except wire.WireError as error:
            raise _cannot_start(f"a process that {self.ending(_START_S)}") from error
        if found != package:
            self.kill()
            raise _cannot_start(f"the package {found}, wanted {package}")
        self._ready = True

    def send(self, message: wire.Message) -> None:
        """Say something; if it has ended, that is told when it is listened to."""
        with suppress(wire.WireError):
            wire.send(self._requests, message)

    def receive(self, seconds: float, most_bytes: int = 0) -> tuple[wire.Message, wire.Arrays]:
        """Listen, for so many seconds; then it is killed.

        Raises:
            WireError: It has ended, or says what it may not say.
        """
        with self._lock:
            self._deadline = time.monotonic() + seconds
        try:
            return wire.receive(self._answers, most_bytes)
        finally:
            with self._lock:
                self._deadline = None

    def kill(self) -> None:
        """End it, and what it has started, at once."""
        if not self.ended:
            if sys.platform == "win32":
                self._process.kill()
            else:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """End it, with its pipes; only for who has it."""
        self.kill()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()

    def kill_overdue(self) -> None:
        """End it if somebody has waited too long for it."""
        with self._lock:
            if self._deadline is None or time.monotonic() < self._deadline:
                return
            self._overdue = True
        self.kill()

    def ending(self, seconds: float) -> str:
        """What happened to it, in words for the file that it had; it has ended, or is ended now.

        Args:
            seconds: How long it was waited for.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_S)  # its pipes close a moment before it is gone
        by_itself = self.ended
        self.close()
        code = self._process.returncode
        if self._overdue:
            return f"kept a reader busy for more than {seconds:g} s"
        if not by_itself:
            return "made its reader talk nonsense"
        if code < 0:
            return f"crashed its reader (signal {-code})"
        return f"ended its reader (exit status {code})"


@dataclass
class _Reading:
    """One file in the hands of a worker."""

    worker: _Worker
    path: Path
    wanted: Wanted
    clock: Clock
    timeout_s: float
    sha256: str | None = None
    done: int = 0

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
            self._ask()
            while True:
                asked = time.monotonic()
                message, arrays = self.worker.receive(self.timeout_s - spent_s, most_bytes)
                spent_s += time.monotonic() - asked
                kind = message["kind"]
                if kind == "read":
                    self.sha256 = str(message["sha256"])
                elif kind in ("picture", "unread"):
                    held = wire.unpacked(message, arrays, self.path, self.wanted)
                elif kind in ("room", "end", "fault"):
                    if held is not None:
                        yield held
                        self.done += 1
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
        except (wire.WireError, KeyError, TypeError, ValueError):
            ending = self.worker.ending(self.timeout_s)
            if held is not None:
                yield held
                self.done += 1
            yield self._unread(ending, started)

    def go_on(self) -> None:
        """Tell the worker that there is room."""
        self.worker.send({"kind": "room"})

    def _ask(self) -> None:
        message = wire.request(self.path.absolute(), self.wanted)
        cpu = self.clock.timer is time.thread_time
        self.worker.send({**message, "cpu": cpu, "timeout_s": self.timeout_s})

    def _end(self, message: wire.Message) -> None:
        self.clock.add({str(name): float(s) for name, s in message["seconds"].items()})
        self.worker.busy = False
        if message["last"]:
            self.worker.kill()

    def _unread(self, what: str, started: float) -> Item:
        words = f"{self.path.name}: found a file that {what}, wanted a valid one"
        elapsed_ms = (time.perf_counter() - started) * 1000.0
        return unread(self.path, self.done or None, self.sha256, words, elapsed_ms)


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


def _cannot_start(found: str) -> StartError:
    return StartError(
        f"a process that reads files cannot be started: found {found}",
        "`--set isolate=false` reads them in this process",
    )
