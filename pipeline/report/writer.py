"""What the writers of all outputs have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from ..config import RunConfig
from ..outcome import Outcome
from .stream import BEGINNING, Mark, Stream

if TYPE_CHECKING:
    from ..runtime.session import Weights
    from .resume import Kept


class ReportWriter(Protocol):
    """Anything that takes outcomes one by one."""

    def write(self, outcome: Outcome) -> None:
        """Take one outcome."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """What the outputs of a run are opened with.

    Attributes:
        folder: The output folder.
        root: See :func:`pipeline.report.record.to_record`.
        weights: Every network of the run.
        config: Its settings.
        kept: The part of an unfinished run that is not done again.
    """

    folder: Path
    root: Path
    weights: Weights
    config: RunConfig
    kept: Kept

    def after(self, path: Path) -> Mark:
        """Where a file that is appended to continues; its beginning in a new run."""
        return self.kept.outputs.get(path.name, BEGINNING)


class Writer(ABC):
    """Writes one output; a context manager that is left when the run ends or breaks off."""

    @classmethod
    @abstractmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """The writer for a run.

        Args:
            path: The file or folder to write.
            job: What it is written for.

        Raises:
            OutputError: It cannot be written.
        """

    @abstractmethod
    def write(self, outcome: Outcome) -> None:
        """Take one outcome.

        Raises:
            OutputError: It cannot be written.
        """

    def noted(self) -> Any:
        """What the journal keeps for :meth:`recount` with the last outcome; None for nothing.

        In JSON values. Asked once for each outcome.
        """
        return None

    def recount(self, outcome: Outcome, notes: Any) -> None:  # noqa: B027 - most need nothing
        """Take into account an outcome that an earlier process wrote, without writing it again.

        Args:
            outcome: Without picture and heatmaps.
            notes: Those of :meth:`noted`.
        """

    @property
    def summary(self) -> str:
        """A line for the end of the run; empty for none."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - some write whole files only
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the output; with an error the run broke off."""


class StreamWriter(Writer):
    """Writes one text file to which every outcome is appended.

    Attributes:
        stream: The file.

    Args:
        path: The file; replaced when it exists.
        after: Where the file of an unfinished run continues.
    """

    def __init__(self, path: Path, after: Mark) -> None:
        self.stream = Stream(path, after)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stream.close(whole=kind is None)
