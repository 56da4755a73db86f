"""Benchmark results as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .results import PARTS, REFERENCE, Measured, Spread


def print_table(
    console: Console, measured: Sequence[Measured], reasons: Mapping[str, str], about: str
) -> None:
    """Print the figures, the parts, the share of the networks, and the missing contenders.

    Args:
        console: Output.
        measured: Figures of the contenders.
        reasons: Why other contenders were not measured, by name.
        about: Description of the job, one or two lines.
    """
    console.print(_figures(measured))
    if any(row.parts_ms for row in measured):
        console.print(_parts(measured))
    for row in measured:
        if row.session_images_per_s is not None and row.session_share is not None:
            _print_line(
                console,
                f"{row.name}: the networks alone run {_spread(row.session_images_per_s)} images/s; "
                f"the whole job reaches {_spread(row.session_share, 100.0, ' %')} of that",
            )
    for reason, names in groupby(reasons, key=reasons.__getitem__):
        _print_line(console, f"not measured: {', '.join(names)}: {reason}")
    for note in dict.fromkeys(row.peak_note for row in measured if row.peak_note):
        _print_line(console, f"peak memory: {note}")
    _print_line(console, about)
    _print_line(
        console,
        "median [minimum, maximum] of the rounds; a ratio compares the same round; memory is "
        "the peak of the process and its workers, without GPU memory",
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
            _short(row.seconds.median),  # images/s shows its spread
            "–" if row.peak_mb is None else f"{row.peak_mb:.0f}",
        )
    return table


def _parts(measured: Sequence[Measured]) -> Table:
    """Two lines per contender: thread-milliseconds per picture, and shares."""
    known = [row for row in measured if row.parts_ms]
    names = dict.fromkeys([*PARTS, *(name for row in known for name in row.parts_ms or {})])
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("core-ms per picture", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for row in known:
        parts, shares = row.parts_ms or {}, row.shares
        table.add_row(row.name, *(f"{parts.get(name, 0.0):.1f}" for name in names))
        table.add_row("", *(f"{100.0 * shares.get(name, 0.0):.0f} %" for name in names))
    return table


def _spread(spread: Spread, scale: float = 1.0, unit: str = "") -> str:
    """``4.43 [4.30, 4.51]``: three significant digits."""
    median, low, high = (_short(v * scale) for v in (spread.median, spread.low, spread.high))
    return f"{median}{unit} [{low}, {high}]"


def _short(value: float) -> str:
    decimals = 0 if value >= 100.0 else 1 if value >= 10.0 else 2
    return f"{value:.{decimals}f}"


def _print_line(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)  # Text, not markup: prints "[" as it is
