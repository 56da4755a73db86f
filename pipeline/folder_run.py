"""A run that writes all its outputs into one folder, and can be resumed after any interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .config import RunConfig
from .engine import run
from .errors import UsageError
from .lock import exclusive
from .outcome import Outcome
from .progress import Progress
from .reading.prepared_picture import Reader
from .report.journal import Journal, read
from .report.outputs import Output, Resume
from .report.resume import Done, Kept, keep
from .report.unfinished import About, begin_or_resume
from .report.writer import Job, Writer
from .runtime.session import Weights
from .studies import Studies

if TYPE_CHECKING:
    from .io.remote import Fetched


class Counter(Protocol):
    """Takes every outcome of a run, also those that an earlier process wrote."""

    def write(self, outcome: Outcome) -> None:
        """Count one outcome."""
        ...


@dataclass(frozen=True, slots=True)
class FolderRun:
    """Judges files, and writes all outputs of one folder.

    Attributes:
        networks: Every network of the run.
        config: Settings of the run.
        root: See :func:`pipeline.report.record.to_record`.
        studies: Gives each picture the key of its study.
        outputs: What is written.
        reader: Reads files; its owner stops it. None to open one for each folder.
        fetched: Local copies of remote files, which are removed when their rows are written; None
            for local files.
    """

    networks: Weights
    config: RunConfig
    root: Path
    studies: Studies
    outputs: Sequence[Output]
    reader: Reader | None = None
    fetched: Fetched | None = None

    def judge(
        self,
        files: Iterator[Path],
        folder: Path,
        about: About,
        count: Counter,
        progress: Progress,
        *,
        restart: bool = False,
        resumed: Callable[[Kept], None] = lambda _: None,
        stopped: Callable[[int], None] = lambda _: None,
    ) -> list[str]:
        """Judge files and write the folder; an unfinished run in it is resumed.

        Args:
            files: The files, in order.
            folder: Output folder; it is made, and locked while this runs.
            about: What results depend on, from :func:`pipeline.report.unfinished.about`.
            count: Gets every outcome.
            progress: Advanced once for each file.
            restart: Whether an unfinished run in the folder is discarded.
            resumed: Called with what is kept of an unfinished run.
            stopped: Called with the number of finished files when this is interrupted.

        Returns:
            Lines of the outputs for the summary.

        Raises:
            UsageError: The folder cannot be written, is locked by another process, or contains an
                unfinished run of another configuration.
            OutputError: An output cannot be written.
        """
        with ExitStack() as stack:
            lock_output(stack, folder)
            kept, unfinished = begin_or_resume(folder, about, restart)
            check_writable(folder, self.outputs)
            job = Job(folder, self.root, self.networks, self.config, kept)
            writers = {
                one.name: one.open(job) for one in self.outputs if one.resume is Resume.RECOUNT
            }
            if unfinished:
                files = keep(
                    islice(read(folder), 1, None), files, folder, self.root,
                    self.config.reader_threads,
                    partial(self._recount, count, dict(writers), progress), kept,
                )  # fmt: skip
                resumed(kept)
            journal = stack.enter_context(Journal(folder, self.root, kept.journal))
            stack.enter_context(_interruptions(journal, stopped))
            for one in self.outputs:
                if one.name not in writers:
                    writers[one.name] = one.open(job)
                stack.enter_context(writers[one.name])
            journal.follow(writers, kept.outputs)
            rendered = any(one.pictures for one in self.outputs)
            outcomes = run(
                files, self.networks, self.config, rendered=rendered, study_of=self.studies.key,
                reader=self.reader,
            )  # fmt: skip
            # Closed before the writers, so that no thread still works when a stopped run ends.
            stack.enter_context(closing(outcomes))
            last = [journal] if self.fetched is None else [journal, self.fetched]
            _write_all(outcomes, [*writers.values(), count, *last], progress)
        return [line for writer in writers.values() if (line := writer.summary)]

    def _recount(
        self, count: Counter, writers: Mapping[str, Writer], progress: Progress, done: Done
    ) -> None:
        """Count a file with rows that an earlier process wrote."""
        self.studies.key(done.path, None)
        for outcome, notes in zip(done.outcomes, done.notes, strict=True):
            count.write(outcome)
            for name, writer in writers.items():
                writer.recount(outcome, notes.get(name))
        if self.fetched is not None:
            self.fetched.remove(done.path)
        progress.advance()


@contextmanager
def _interruptions(journal: Journal, stopped: Callable[[int], None]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        stopped(journal.files)
        raise


def _write_all(outcomes: Iterator[Outcome], writers: Sequence[Counter], progress: Progress) -> None:
    last = None
    for outcome in outcomes:
        for writer in writers:
            writer.write(outcome)
        if outcome.image.path != last:  # a file with several frames counts once
            last = outcome.image.path
            progress.advance()


def lock_output(stack: ExitStack, folder: Path) -> None:
    """Make the folder, and lock it against other processes until the stack is closed.

    Raises:
        UsageError: It cannot be written, or another process has locked it.
    """
    with write_errors("--output", folder):
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(exclusive(folder))


def check_writable(folder: Path, outputs: Sequence[Output]) -> None:
    """Check that the files can be written; a table may be open in a spreadsheet.

    Raises:
        UsageError: They cannot.
    """
    with write_errors("--output", folder):
        for one in outputs:
            if one.is_file:
                (folder / one.name).touch()


@contextmanager
def write_errors(option: str, folder: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a UsageError that names option and folder."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{option} {folder}: cannot be written: {error.strerror}", f"name another {option}"
        ) from error
