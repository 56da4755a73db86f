"""How far a run is, on stderr and only where somebody can see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as _RichProgress


class Progress(Protocol):
    """Anything that can be told that one more unit (a file, a batch) is done."""

    def advance(self) -> None:
        """Count one unit."""
        ...


class Silent:
    """Shows nothing."""

    def advance(self) -> None:
        """Count one unit."""


class _Bar:
    def __init__(self, bar: _RichProgress, total: int | None, unit: str) -> None:
        self._bar = bar
        self._task = bar.add_task(unit, total=total)

    def advance(self) -> None:
        self._bar.advance(self._task)


@contextmanager
def on_stderr(total: int | None, quiet: bool, unit: str = "files") -> Iterator[Progress]:
    """Show a bar while the block runs; nothing when quiet or when stderr is no terminal.

    Args:
        total: Number of units; None when unknown.
        quiet: Whether to show nothing.
        unit: What is counted.
    """
    if quiet or not visible():
        yield Silent()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with _RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, total, unit)


def visible() -> bool:
    """Whether stderr is a terminal."""
    return Console(stderr=True).is_terminal
