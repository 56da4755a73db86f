"""Progress bar on stderr, shown only on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as _RichProgress
from rich.text import Text


class Progress(Protocol):
    """Receiver of progress: counts finished units (files, batches)."""

    def advance(self) -> None:
        """Count one unit."""
        ...

    def expect(self, unit: str, total: int, done: int, each: int) -> None:
        """Set what is counted from now on.

        Args:
            unit: Name of the units.
            total: Total number of units.
            done: Number of finished units.
            each: Number of units per call of :meth:`advance`.
        """
        ...


class Silent:
    """Shows nothing."""

    def advance(self) -> None:
        """Count one unit."""

    def expect(self, unit: str, total: int, done: int, each: int) -> None:
        """Set what is counted from now on."""


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


class _Bar:
    def __init__(self, bar: _RichProgress, total: int | None, unit: str) -> None:
        self._bar = bar
        self._task = bar.add_task(unit, total=total)
        self._each = 1

    def advance(self) -> None:
        self._bar.advance(self._task, self._each)

    def expect(self, unit: str, total: int, done: int, each: int) -> None:
        self._each = each
        self._bar.update(self._task, description=unit, total=total, completed=done)


@contextmanager
def on_stderr(total: int | None, quiet: bool, unit: str = "files") -> Iterator[Progress]:
    """Show a bar while the block runs; nothing if quiet or if stderr is not a terminal.

    Args:
        total: Number of units; None if unknown.
        quiet: Whether to show nothing.
        unit: Name of the units.
    """
    if quiet or not visible():
        yield Silent()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with _RichProgress(*columns, console=console, transient=True, expand=True) as bar:
        yield _Bar(bar, total, unit)


def visible() -> bool:
    """Whether stderr is a terminal."""
    return Console(stderr=True).is_terminal
