"""The summary on the terminal at the end of a run: a table and the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..flags import OWN_OUTPUT
from ..outcome import SEVERITY, Outcome, Status, Verdict
from .record import compared, image_text, path_text, plain, subject

MEANING = (
    "The region describes the picture, not the location: the finding may be in any bone in view. A "
    "heatmap shows places that resemble the finding, and may be wrong."
)
"""The meaning of labels and heatmaps, for outputs that are used without the HTML page."""

INTENDED_USE = (
    "A second reader for research; not a medical device. A negative answer excludes nothing."
)

_MOST_ROWS = 50
_MOST_NAMES = 3
_STYLES = {
    Verdict.POSITIVE: "bold red",
    Verdict.UNCERTAIN: "yellow",
    Status.FAILED: "magenta",
    Status.UNSUPPORTED: "cyan",
    Verdict.NEGATIVE: "green",
}


@dataclass(frozen=True, slots=True)
class _Row:
    place: int
    answer: Verdict | Status
    probability: float
    compared: str
    name: str
    about: str


class Summary:
    """A :class:`~pipeline.report.writer.ReportWriter` that keeps counts and the most severe rows.

    Args:
        root: See :func:`pipeline.report.record.to_record`.
        left_out: Folders with results of earlier runs that are not read; the caller may still add
            folders during the run.
    """

    def __init__(self, root: Path, left_out: Collection[Path] = ()) -> None:
        self._root = root
        self._left_out = left_out
        self._own_count = 0
        self._counts: Counter[Verdict | Status] = Counter()
        self._rows: list[_Row] = []

    @property
    def total(self) -> int:
        """Number of outcomes written."""
        return self._counts.total()

    @property
    def failed(self) -> int:
        """Number of failed outcomes."""
        return self._counts[Status.FAILED]

    def write(self, outcome: Outcome) -> None:
        """Count one outcome and keep its row while it is among the most severe."""
        row = self._row(outcome)
        self._counts[row.answer] += 1
        self._own_count += any(flag.name == OWN_OUTPUT.name for flag in outcome.flags)
        self._rows.append(row)
        if len(self._rows) >= 4 * _MOST_ROWS:  # limits memory
            self._rows = sorted(self._rows, key=_worst_first)[: _MOST_ROWS + 1]

    def print_to(
        self, console: Console, results: Path, outputs: Iterable[str] = (), warning: str = ""
    ) -> None:
        """Print the table, the counts and the intended use.

        Args:
            console: The console to print to.
            results: The file with all rows; named if the table is shortened.
            outputs: Summary lines of the writers.
            warning: A line about decisions made without the density gate; empty if none.
        """
        rows = self._rows
        if self.total > _MOST_ROWS:
            rows = sorted(rows, key=_worst_first)[:_MOST_ROWS]
        table = Table(box=box.SIMPLE, pad_edge=False)
        table.add_column("picture", overflow="fold", ratio=1)
        table.add_column("answer", no_wrap=True)
        table.add_column("p", no_wrap=True)
        table.add_column("about", overflow="fold", ratio=2)
        for row in rows:
            table.add_row(
                # Text, not markup: a file name may look like "[red]".
                Text(row.name),
                Text(row.answer.value, style=_STYLES[row.answer]),
                Text(row.compared),
                Text(row.about),
            )
        console.print(table)
        if self.total > len(rows):
            console.print(
                Text(f"… {self.total - len(rows)} more, less severe: see {plain(str(results))}"),
                soft_wrap=True,
            )
        if any(row.compared for row in rows):
            console.print(Text("p: probability, and the threshold from which it is positive"))
        counts = [f"{n} {answer.value}" for answer in SEVERITY if (n := self._counts[answer])]
        console.print(Text(f"{self.total} in all: {', '.join(counts)}"), soft_wrap=True)
        if own := self._own_output():
            console.print(Text(own), soft_wrap=True)
        for line in outputs:
            console.print(Text(line), soft_wrap=True)
        if warning:
            console.print(Text(warning, style="bold"), soft_wrap=True)
        console.print(Text(INTENDED_USE), soft_wrap=True)

    def _own_output(self) -> str:
        """A line about output of fxpipe in the input; empty without any."""
        parts = []
        if self._own_count:
            noun = "file" if self._own_count == 1 else "files"
            parts.append(f"{self._own_count} {noun} among these rows")
        if self._left_out:
            names = [path_text(path, self._root) for path in self._left_out]
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            what = "the results in" if len(names) == 1 else f"the results in {len(names)} folders:"
            parts.append(f"{what} {', '.join(names[:_MOST_NAMES])}{more}")
        return f"Own output of fxpipe, not judged: {'; '.join(parts)}" if parts else ""

    def _row(self, outcome: Outcome) -> _Row:
        leading = outcome.leading
        name = image_text(outcome.image, self._root)
        if outcome.image.frame is not None:
            name += f" (frame {outcome.image.frame})"
        if leading is None:
            about = [plain(outcome.error or "")]
            about += [flag.reason for flag in outcome.flags]
            return _Row(self.total, outcome.status, -1.0, "", name, "; ".join(about))
        others = [f for f in outcome.findings if f is not leading]
        about = [subject(leading)]
        about += [f"{subject(f)}: {f.verdict.value} {compared(f)}" for f in others]
        about += [f"{region}: no specialist" for region in outcome.unexamined]
        about += [flag.reason for flag in outcome.flags]
        return _Row(
            self.total, leading.verdict, leading.probability, compared(leading), name,
            "; ".join(about),
        )  # fmt: skip


def _worst_first(row: _Row) -> tuple[int, float, int]:
    return SEVERITY.index(row.answer), -row.probability, row.place
