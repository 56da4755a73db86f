"""Messages about a run that resumes or is stopped, and the signals that stop it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from ..report.resume import Kept


class Stopped(KeyboardInterrupt):
    """The process received SIGTERM."""

    exit_code = 143


def resume_message(output: Path, kept: Kept) -> str:
    """The message for a run that resumes."""
    files = kept.journal.rows
    line = f"resuming the unfinished run in {output}: {files} {_noun(files)} done"
    return f"{line}; all later files are done again ({kept.broken})" if kept.broken else line


def stop_message(files: int) -> str:
    """The message for a run that is stopped."""
    return f"stopped after {files} {_noun(files)}; the same command resumes from there"


def _noun(files: int) -> str:
    return "file" if files == 1 else "files"


def tell_stopped(files: int) -> None:
    """Print that a stopped run can be resumed."""
    click.echo(stop_message(files), err=True)


@contextmanager
def stoppable(ctx: click.Context) -> Iterator[None]:
    """While the block runs, SIGTERM ends it like Ctrl-C, with its own exit code."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    # Only the main thread may set handlers; Windows kills a process without a signal.
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Stopped:
        ctx.exit(Stopped.exit_code)
    finally:
        signal.signal(signal.SIGTERM, before)
