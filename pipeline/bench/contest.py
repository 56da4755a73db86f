"""Contenders in processes of their own, asked in turn to do the same job.

Whatever else the machine does meets all of them alike, because every round lets each do the job
once, in an order that turns round with the round. A contender that is not asked waits for a
message, and takes no processor time.
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
"""Pause before a job: the threads of the contender before spin for a moment when they are done."""

_LEAVE_S = 10.0
"""After which a process that was told to end is ended."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What came out of a job.

    Attributes:
        pictures: Rows that were written.
        looks: How often a specialist looked at a picture.
        parts_s: Seconds by the name of the work, summed over threads; empty where unknown.
    """

    pictures: int
    looks: int
    parts_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Round:
    """One contender, one round.

    Attributes:
        seconds: The whole job, from files to rows.
        tally: What came out.
        session_images_per_s: What its networks alone do, without files and rows; None where it
            was not asked for or is not known.
        peak_bytes: The most memory that its process ever had resident when the job was done;
            None when that is not known.
        peak_note: Why not.
    """

    seconds: float
    tally: Tally
    session_images_per_s: float | None = None
    peak_bytes: int | None = None
    peak_note: str = ""


class Contender(Protocol):
    """Somebody who does the job."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """JSON: how it does it."""
        ...

    def do(self, paths: Sequence[Path], output: Path) -> Tally:
        """Read files and write rows into the folder ``output``."""
        ...

    def session(self, paths: Sequence[Path]) -> float | None:
        """Pictures a second of the networks alone; None where that is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender before it is opened.

    Attributes:
        name: With its device: ``fxpipe-int8-cpu``.
        device: ``cpu``, ``cuda`` or ``tensorrt``.
        opens: Makes the contender, in its own process: to be pickled. None when it cannot be had.
        reason: Why not.
    """

    name: str
    device: str
    opens: Callable[[], Contender] | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """Everything that one contender did.

    Attributes:
        entrant: Who.
        rounds: In order.
        facts: See :class:`Contender`.
    """

    entrant: Entrant
    rounds: tuple[Round, ...]
    facts: Mapping[str, Any]


class _LostError(Exception):
    """A contender is out; the message says why."""


def contend(
    entrants: Sequence[Entrant], job: Job, rounds: int, warm_up: int, session: bool,
    progress: Progress,
) -> tuple[list[Score], dict[str, str]]:  # fmt: skip
    """Let everybody do the job, round after round.

    Args:
        entrants: Who; those that cannot be had are passed on with their reasons.
        job: What.
        rounds: How often.
        warm_up: Files that each reads before the first round.
        session: Whether the networks alone are measured too.
        progress: Advanced once for each contender that is opened, and once for each job.

    Returns:
        Scores in the order of the entrants, and why the others have none, by name.
    """
    reasons = {entrant.name: entrant.reason for entrant in entrants if entrant.opens is None}
    done: dict[str, list[Round]] = {}
    scores = []
    with ExitStack() as stack:
        at_work: dict[str, _Process] = {}
        for entrant in entrants:
            if entrant.opens is None:
                continue
            process = stack.enter_context(_Process(entrant, job, warm_up, session))
            try:
                process.hear()
                at_work[entrant.name], done[entrant.name] = process, []
            except _LostError as lost:
                reasons[entrant.name] = str(lost)
            progress.advance()
        for number in range(rounds):
            for name in list(at_work)[:: -1 if number % 2 else 1]:
                time.sleep(_SETTLE_S)
                try:
                    done[name].append(at_work[name].round(job.pictures))
                except _LostError as lost:
                    reasons[name] = str(lost)
                    del at_work[name]
                progress.advance()
        for entrant in entrants:
            if entrant.name not in at_work:
                continue
            try:
                facts = at_work[entrant.name].end()
                scores.append(Score(entrant, tuple(done[entrant.name]), facts))
            except _LostError as lost:
                reasons[entrant.name] = str(lost)
    return scores, {e.name: reasons[e.name] for e in entrants if e.name in reasons}


class _Process:
    """The process of one contender, seen from outside."""

    def __init__(self, entrant: Entrant, job: Job, warm_up: int, session: bool) -> None:
        context = multiprocessing.get_context("spawn")  # nothing of this process goes with it
        self._line, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(theirs, entrant.opens, job.paths, warm_up, session),
            name=entrant.name,
            daemon=True,
        )
        self._process.start()
        theirs.close()  # else the end of the process would not be heard here

    def hear(self) -> Any:
        """The next answer.

        Raises:
            _LostError: It has none any more.
        """
        try:
            answer = self._line.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(_LEAVE_S)
            code = self._process.exitcode
            killed = ": killed, for want of memory perhaps" if code == -9 else ""
            raise _LostError(f"its process ended with exit code {code}{killed}") from error
        if isinstance(answer, _Refusal):
            raise _LostError(answer.reason)
        return answer

    def round(self, pictures: int) -> Round:
        """Have the job done once.

        Raises:
            _LostError: It failed, or did another job.
        """
        self._say(_GO)
        answer: Round = self.hear()
        if answer.tally.pictures != pictures:
            raise _LostError(f"it wrote {answer.tally.pictures} rows, wanted {pictures}")
        return answer

    def end(self) -> Mapping[str, Any]:
        """See :attr:`Contender.facts`."""
        self._say(_END)
        facts: Mapping[str, Any] = self.hear()
        return facts

    def _say(self, word: str) -> None:
        try:
            self._line.send(word)
        except OSError as error:
            raise _LostError("its process ended") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.close()  # which a process that waits hears as its end
        if kind is not None:
            self._process.terminate()
        self._process.join(_LEAVE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str


_GO, _END = "go", "end"


def _serve(
    line: Connection, opens: Callable[[], Contender], paths: Sequence[Path], warm_up: int,
    session: bool,
) -> None:  # fmt: skip
    """The process of one contender, seen from inside."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that asks
    try:
        contender = opens()
        _round(contender, paths[:warm_up], session=False)
        line.send(None)
        while line.recv() == _GO:
            line.send(_round(contender, paths, session))
        line.send(contender.facts)
    except FxpipeError as error:
        line.send(_Refusal(f"{error} ({error.hint})" if error.hint else str(error)))
    except (EOFError, ConnectionError):
        return  # nobody listens any more


def _round(contender: Contender, paths: Sequence[Path], session: bool) -> Round:
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        tally = contender.do(paths, Path(folder))
        seconds = time.perf_counter() - started
    peak = peak_memory()  # before the pictures of a session lie in memory too
    return Round(seconds, tally, contender.session(paths) if session else None, *peak)
