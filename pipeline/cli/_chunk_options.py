"""Options that choose chunks of a plan."""

from __future__ import annotations

import re

import click


def chunk_ranges(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> list[range] | None:
    """Callback of an option for chunks: ``17``, ``17-40`` or ``3,7-9``.

    Raises:
        BadParameter: It is written in another way.
    """
    if value is None:
        return None
    found = []
    for part in value.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip())
        if match is None:
            raise click.BadParameter(f"found {value!r}, expected 17, 17-40 or 3,7-9", ctx, param)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise click.BadParameter(f"found {part!r}, expected the lower number first", ctx, param)
        found.append(range(first, last + 1))
    return found


def shard_of(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Callback of an option for one of several processes: ``2/7``.

    Returns:
        Number of the process from 1, and number of processes.

    Raises:
        BadParameter: It is written in another way.
    """
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(
            f"found {value!r}, expected i/n with i from 1 to n, such as 2/7", ctx, param
        )
    return int(match[1]), int(match[2])
