"""The console that commands print to."""

from __future__ import annotations

import io
import sys

from rich.console import Console


def stdout_console() -> Console:
    """A console that prints any file name in any encoding of the terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console()
