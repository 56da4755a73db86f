"""What a contest shows, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .measured import PARTS, REFERENCE, Measured, Spread


def print_table(
    console: Console, measured: Sequence[Measured], reasons: Mapping[str, str], about: str
) -> None:
    """Print figures, parts, the distance to the networks alone, and who is missing.

    Args:
        console: Where to.
        measured: Contenders.
        reasons: Why others were not measured, by name.
        about: What was measured, in a line or two.
    """
    console.print(_figures(measured))
    if any(row.parts_ms for row in measured):
        console.print(_parts(measured))
    for row in measured:
        if row.session_images_per_s is not None and row.session_share is not None:
            _say(
                console,
                f"{row.name}: its networks alone {_spread(row.session_images_per_s)} images/s; "
                f"the whole job is {_spread(row.session_share, 100.0, ' %')} of that",
            )
    for reason, names in groupby(reasons, key=reasons.__getitem__):
        _say(console, f"not measured: {', '.join(names)}: {reason}")
    for note in dict.fromkeys(row.peak_note for row in measured if row.peak_note):
        _say(console, f"peak memory: {note}")
    _say(console, about)
    _say(
        console,
        "median [least, greatest] of the rounds; a ratio is taken within a round; memory is "
        "the peak of the process with its workers, without that of a GPU",
    )


def _figures(measured: Sequence[Measured]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("whole job", no_wrap=True)
    for heading in ("images/s", f"× {REFERENCE}", "seconds", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in measured:
        table.add_row(
            row.name,
            _spread(row.images_per_s),
            "–" if row.ratio is None else _spread(row.ratio),
            _short(row.seconds.median),  # its spread is that of images/s
            "–" if row.peak_mb is None else f"{row.peak_mb:.0f}",
        )
    return table


def _parts(measured: Sequence[Measured]) -> Table:
    """Of each contender two lines: thread-milliseconds a picture, and shares."""
    known = [row for row in measured if row.parts_ms]
    names = dict.fromkeys([*PARTS, *(name for row in known for name in row.parts_ms or {})])
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("core-ms a picture", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for row in known:
        parts, shares = row.parts_ms or {}, row.shares
        table.add_row(row.name, *(f"{parts.get(name, 0.0):.1f}" for name in names))
        table.add_row("", *(f"{100.0 * shares.get(name, 0.0):.0f} %" for name in names))
    return table


def _spread(spread: Spread, scale: float = 1.0, unit: str = "") -> str:
    """``4.43 [4.30, 4.51]``: three digits that count."""
    median, low, high = (_short(v * scale) for v in (spread.median, spread.low, spread.high))
    return f"{median}{unit} [{low}, {high}]"


def _short(value: float) -> str:
    decimals = 0 if value >= 100.0 else 1 if value >= 10.0 else 2
    return f"{value:.{decimals}f}"


def _say(console: Console, words: str) -> None:
    console.print(Text(words), soft_wrap=True)  # Text, not markup: "[" is a bracket
