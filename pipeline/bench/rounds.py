"""Interleaved benchmark rounds of several contenders, each in a separate process.

In every round each contender does the job once, and the order is reversed from round to round, so
other load on the machine affects all of them equally. An idle contender waits for a message and
uses no processor time.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol, Self

from ..errors import FxpipeError
from ..progress import Progress
from .job import Job
from .machine import peak_memory

_SETTLE_S = 0.3
"""Pause before a job: the threads of the previous contender spin for a moment after their work."""

_SHUTDOWN_S = 10.0
"""Time limit for a process to exit before it is killed."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """Result of a job.

    Attributes:
        pictures: Number of rows written.
        looks: Number of looks by specialists.
        parts_s: Seconds by name of the work, summed over threads; empty if unknown.
    """

    pictures: int
    looks: int
    parts_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one contender.

    Attributes:
        seconds: Duration of the whole job, from files to rows.
        tally: Result of the job.
        session_images_per_s: Throughput of the networks alone, without files and rows; None if
            not requested or not known.
        peak_bytes: Peak resident memory of the process after the job; None if not known.
        peak_note: Why the peak is not known.
    """

    seconds: float
    tally: JobResult
    session_images_per_s: float | None = None
    peak_bytes: int | None = None
    peak_note: str = ""


class Contender(Protocol):
    """An implementation of the job."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Settings of the contender, as JSON."""
        ...

    def do(self, paths: Sequence[Path], output: Path) -> JobResult:
        """Read files and write rows into the folder ``output``."""
        ...

    def session(self, paths: Sequence[Path]) -> float | None:
        """Pictures per second of the networks alone; None if not known."""
        ...


@dataclass(frozen=True, slots=True)
class ContenderSpec:
    """A contender before it is opened.

    Attributes:
        name: Name with the device: ``fxpipe-int8-cpu``.
        device: ``cpu``, ``cuda`` or ``tensorrt``.
        opens: Picklable factory that creates the contender in its own process; None if it is not
            available.
        reason: Why it is not available.
    """

    name: str
    device: str
    opens: Callable[[], Contender] | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """All results of one contender.

    Attributes:
        entrant: The contender.
        rounds: Results of the rounds, in order.
        facts: See :class:`Contender`.
    """

    entrant: ContenderSpec
    rounds: tuple[Round, ...]
    facts: Mapping[str, Any]


class _LostError(Exception):
    """A contender failed; the message gives the reason."""


def run_rounds(
    entrants: Sequence[ContenderSpec], job: Job, rounds: int, warm_up: int, session: bool,
    progress: Progress,
) -> tuple[list[Score], dict[str, str]]:  # fmt: skip
    """Run the benchmark.

    Args:
        entrants: The contenders; unavailable ones are reported with their reasons.
        job: The job.
        rounds: Number of rounds.
        warm_up: Number of files that each contender reads before the first round.
        session: Whether to measure the networks alone too.
        progress: Advanced once for each contender that is opened, and once for each job.

    Returns:
        Scores in the order of the entrants, and for the others the reason by name.
    """
    reasons = {entrant.name: entrant.reason for entrant in entrants if entrant.opens is None}
    done: dict[str, list[Round]] = {}
    scores = []
    with ExitStack() as stack:
        active: dict[str, _Process] = {}
        for entrant in entrants:
            if entrant.opens is None:
                continue
            process = stack.enter_context(_Process(entrant, job, warm_up, session))
            try:
                process.receive()
                active[entrant.name], done[entrant.name] = process, []
            except _LostError as failure:
                reasons[entrant.name] = str(failure)
            progress.advance()
        for number in range(rounds):
            for name in list(active)[:: -1 if number % 2 else 1]:
                time.sleep(_SETTLE_S)
                try:
                    done[name].append(active[name].round(job.pictures))
                except _LostError as failure:
                    reasons[name] = str(failure)
                    del active[name]
                progress.advance()
        for entrant in entrants:
            if entrant.name not in active:
                continue
            try:
                facts = active[entrant.name].end()
                scores.append(Score(entrant, tuple(done[entrant.name]), facts))
            except _LostError as failure:
                reasons[entrant.name] = str(failure)
    return scores, {e.name: reasons[e.name] for e in entrants if e.name in reasons}


class _Process:
    """Handle of the process of one contender."""

    def __init__(self, entrant: ContenderSpec, job: Job, warm_up: int, session: bool) -> None:
        context = multiprocessing.get_context("spawn")  # shares no state with this process
        self._connection, child = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(child, entrant.opens, job.paths, warm_up, session),
            name=entrant.name,
            daemon=True,
        )
        self._process.start()
        child.close()  # otherwise receive would not notice the end of the process

    def receive(self) -> Any:
        """The next message of the process.

        Raises:
            _LostError: The process failed or ended.
        """
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(_SHUTDOWN_S)
            code = self._process.exitcode
            killed = ": killed, perhaps because memory ran out" if code == -9 else ""
            raise _LostError(f"the process ended with exit code {code}{killed}") from error
        if isinstance(answer, _Refusal):
            raise _LostError(answer.reason)
        return answer

    def round(self, pictures: int) -> Round:
        """Run the job once.

        Raises:
            _LostError: The job failed, or returned an unexpected number of rows.
        """
        self._send(_GO)
        answer: Round = self.receive()
        if answer.tally.pictures != pictures:
            raise _LostError(f"it wrote {answer.tally.pictures} rows, expected {pictures}")
        return answer

    def end(self) -> Mapping[str, Any]:
        """See :attr:`Contender.facts`."""
        self._send(_END)
        facts: Mapping[str, Any] = self.receive()
        return facts

    def _send(self, message: str) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise _LostError("the process ended") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()  # a waiting process exits
        if kind is not None:
            self._process.terminate()
        self._process.join(_SHUTDOWN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str


_GO, _END = "go", "end"


def _serve(
    connection: Connection, opens: Callable[[], Contender], paths: Sequence[Path], warm_up: int,
    session: bool,
) -> None:  # fmt: skip
    """Main function of the process of one contender."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    try:
        contender = opens()
        _round(contender, paths[:warm_up], session=False)
        connection.send(None)
        while connection.recv() == _GO:
            connection.send(_round(contender, paths, session))
        connection.send(contender.facts)
    except FxpipeError as error:
        connection.send(_Refusal(f"{error} ({error.hint})" if error.hint else str(error)))
    except (EOFError, ConnectionError):
        return  # the parent process has closed the connection


def _round(contender: Contender, paths: Sequence[Path], session: bool) -> Round:
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        tally = contender.do(paths, Path(folder))
        seconds = time.perf_counter() - started
    peak = peak_memory()  # before the session loads its pictures
    return Round(seconds, tally, contender.session(paths) if session else None, *peak)
