"""Option type for paths: expands ``~`` and refuses an empty text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..io.remote_url import is_url


class PathOption(click.Path):
    """A ``pathlib.Path``.

    A shell replaces ``~`` only at the beginning of a word, so not in ``--input=~/export``. An empty
    text usually comes from an empty variable in a script; pathlib would use the current folder.

    Args:
        options: Options of :class:`click.Path`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # fmt: skip
        """Check one path and expand it."""
        if not str(value):
            self.fail("the text is empty; a path is expected", param, ctx)
        try:
            expanded = Path(value).expanduser()
        except RuntimeError:
            self.fail(f"there is no home folder for {str(value)!r}", param, ctx)
        return super().convert(str(expanded), param, ctx)


class InputOption(PathOption):
    """A ``pathlib.Path``, or the URL of a remote folder as a text."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # fmt: skip
        """Check one input."""
        if isinstance(value, str) and is_url(value):
            return value
        return super().convert(value, param, ctx)


def only_one(ctx: click.Context, param: click.Parameter, values: Sequence[Any]) -> Any:
    """Callback of an option with ``multiple=True`` for a command that can use only one value.

    Without it click uses the last value and silently ignores the others.

    Raises:
        BadParameter: There are several values.
    """
    if len(values) > 1:
        raise click.BadParameter(
            f"given {len(values)} times; it can be given only once", ctx, param
        )
    return values[0] if values else None
