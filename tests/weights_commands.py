"""Shared by the tests of ``fxpipe weights``."""

from __future__ import annotations

from click.testing import CliRunner, Result

from pipeline.cli import main


def run(*words: object) -> Result:
    """Run ``fxpipe weights`` with these arguments."""
    return CliRunner().invoke(main, ["weights", *map(str, words)])


def pack(name: str = "w.zip", *words: object) -> Result:
    """Pack ``./weights`` into a file."""
    result = run("pack", "--output", name, *words)
    assert result.exit_code == 0, result.output
    return result
