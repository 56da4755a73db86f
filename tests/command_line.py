"""Runs ``fxpipe`` in this process, Python code in a new process, and interrupted runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.report.csv_table import CsvWriter
from pipeline.report.journal import NAME

ROOT = Path(__file__).parents[1]
PIPE = subprocess.PIPE


def fxpipe(*words: object) -> Result:
    """Run ``fxpipe`` with these arguments; an unexpected exception is raised."""
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def run_python(
    code: str,
    *arguments: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[Any] = PIPE,
    stderr: int | IO[Any] = PIPE,
) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python process, with warnings as errors.

    Args:
        code: The code; it can import ``pipeline`` and ``stages``.
        arguments: ``sys.argv[1:]``.
        cwd: Working folder; that of this process when None.
        env: Variables in addition to those of this process.
        stdout: As for ``subprocess.run``; captured by default.
        stderr: Likewise.
    """
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        stdout=stdout,
        stderr=stderr,
        text=True,
        check=False,
    )


@contextmanager
def after_rows(count: int, action: Callable[[], object]) -> Iterator[None]:
    """Inside the block, runs call ``action`` once they have written ``count`` rows of a table."""
    write, written = CsvWriter.write, 0

    def counted(self: CsvWriter, *outcome: Any) -> None:
        nonlocal written
        write(self, *outcome)
        written += 1
        if written == count:
            action()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvWriter, "write", counted)
        yield


def break_off(rows: int, run: Callable[[], object]) -> None:
    """Start a run that fails after some rows of results.csv.

    Args:
        rows: Number of rows. The last two are not final: the journal lists the others as done.
        run: Starts the run, with the output folder ``results``.
    """

    def fail() -> None:
        raise RuntimeError

    with after_rows(rows, fail), pytest.raises(RuntimeError):
        run()
    assert (Path("results") / NAME).exists()
