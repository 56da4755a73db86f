"""Paths as options: ``~`` is the user's home, and an empty text is no path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


class PathOption(click.Path):
    """A ``pathlib.Path``.

    A shell replaces ``~`` at the beginning of a word only, so not in ``--input=~/export``. An empty
    variable in a script is a mistake, and pathlib would take it for the current folder.

    Args:
        options: Of :class:`click.Path`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # fmt: skip
        """Check one path and expand it."""
        if not str(value):
            self.fail("found an empty text, wanted a path", param, ctx)
        try:
            expanded = Path(value).expanduser()
        except RuntimeError:
            self.fail(f"found no home folder for {str(value)!r}", param, ctx)
        return super().convert(str(expanded), param, ctx)


def only_one(ctx: click.Context, param: click.Parameter, values: Sequence[Any]) -> Any:
    """Callback of an option with ``multiple=True`` of which a command can use only one value.

    Without it click takes the last one and says nothing of the others.

    Raises:
        BadParameter: There are several.
    """
    if len(values) > 1:
        raise click.BadParameter(f"found {len(values)} of them, wanted one", ctx, param)
    return values[0] if values else None
