"""Base classes of the writers of all outputs."""

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
    """An object that takes outcomes one at a time."""

    def write(self, outcome: Outcome) -> None:
        """Take one outcome."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """The arguments for opening the outputs of a run.

    Attributes:
        folder: The output folder.
        root: See :func:`pipeline.report.record.to_record`.
        weights: Every network of the run.
        config: Settings of the run.
        kept: The part of an unfinished run that is not done again.
    """

    folder: Path
    root: Path
    weights: Weights
    config: RunConfig
    kept: Kept

    def after(self, path: Path) -> Mark:
        """Position where an appended file continues; its beginning in a new run."""
        return self.kept.outputs.get(path.name, BEGINNING)


class Writer(ABC):
    """Writes one output; a context manager that exits when the run ends or is interrupted."""

    @classmethod
    @abstractmethod
    def opened(cls, path: Path, job: Job) -> Self:
        """The writer for a run.

        Args:
            path: The file or folder to write.
            job: The run.

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
        """Notes on the last outcome that the journal keeps for :meth:`recount`, as JSON values.

        Called once for each outcome. None if there is nothing to keep.
        """
        return None

    def recount(self, outcome: Outcome, notes: Any) -> None:  # noqa: B027 - most need nothing
        """Count an outcome that an earlier process wrote, without writing it again.

        Args:
            outcome: The outcome, without picture and heatmaps.
            notes: The notes from :meth:`noted`.
        """

    @property
    def summary(self) -> str:
        """A line for the summary of the run; empty for none."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - some write whole files only
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the output; an error means that the run was interrupted."""


class StreamWriter(Writer):
    """Writes one text file to which every outcome is appended.

    Attributes:
        stream: The file.

    Args:
        path: The file; an existing one is replaced.
        after: Position where the file of an unfinished run continues.
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
