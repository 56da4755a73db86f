"""What the terminal shows at the end: a table and the counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..domain import ANY_REGION, FractureCall, Outcome, Status, Verdict
from .record import path_text, plain

INTENDED_USE = (
    "A second reader for research; not a medical device. A negative answer excludes nothing."
)

_MOST_ROWS = 50
_GRAVITY = (
    Verdict.POSITIVE,
    Verdict.UNCERTAIN,
    Status.FAILED,
    Status.UNSUPPORTED,
    Verdict.NEGATIVE,
)
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
    name: str
    about: str


class Summary:
    """A :class:`~pipeline.report.record.ReportWriter` that remembers counts and the worst rows.

    Args:
        root: See :func:`pipeline.report.record.to_record`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._counts: Counter[Verdict | Status] = Counter()
        self._rows: list[_Row] = []

    @property
    def total(self) -> int:
        """How many outcomes were written."""
        return self._counts.total()

    @property
    def failed(self) -> int:
        """How many of them are failed."""
        return self._counts[Status.FAILED]

    def write(self, outcome: Outcome) -> None:
        """Count one outcome and keep its row while it is among the worst."""
        row = self._row(outcome)
        self._counts[row.answer] += 1
        self._rows.append(row)
        if len(self._rows) >= 4 * _MOST_ROWS:  # now and then, so that memory stays constant
            self._rows = sorted(self._rows, key=_worst_first)[: _MOST_ROWS + 1]

    def print_to(
        self, console: Console, results: Path, studies: str = "", warning: str = ""
    ) -> None:
        """Print the table, the counts and the intended use.

        Args:
            console: Where to.
            results: The file that has every row, named when the table is cut.
            studies: What became of the studies, in a line; empty when there are none.
            warning: What was left out of the decisions, in a line; empty when nothing was.
        """
        rows = self._rows
        if self.total > _MOST_ROWS:
            rows = sorted(rows, key=_worst_first)[:_MOST_ROWS]
        table = Table(box=box.SIMPLE, pad_edge=False)
        table.add_column("picture", overflow="fold", ratio=3)
        table.add_column("answer", no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
        table.add_column("about", overflow="fold", ratio=4)
        for row in rows:
            known = row.probability >= 0.0
            table.add_row(
                # Text, not markup: a name like "[red]" is a name.
                Text(row.name),
                Text(row.answer.value, style=_STYLES[row.answer]),
                Text(f"{row.probability:.3f}" if known else ""),
                Text(row.about),
            )
        console.print(table)
        if self.total > len(rows):
            console.print(
                Text(f"… {self.total - len(rows)} more, less grave: see {plain(str(results))}"),
                soft_wrap=True,
            )
        counts = [f"{n} {answer.value}" for answer in _GRAVITY if (n := self._counts[answer])]
        console.print(Text(f"{self.total} in all: {', '.join(counts)}"), soft_wrap=True)
        if studies:
            console.print(Text(studies), soft_wrap=True)
        if warning:
            console.print(Text(warning, style="bold"), soft_wrap=True)
        console.print(Text(INTENDED_USE), soft_wrap=True)

    def _row(self, outcome: Outcome) -> _Row:
        leading = outcome.leading
        name = path_text(outcome.image.path, self._root)
        if outcome.image.frame is not None:
            name += f" (frame {outcome.image.frame})"
        if leading is None:
            about = [plain(outcome.error or "")]
            about += [flag.name for flag in outcome.flags]
            return _Row(self.total, outcome.status, -1.0, name, "; ".join(about))
        others = [f for f in outcome.findings if f is not leading]
        about = [_subject(leading)]
        about += [f"{_subject(f)} {f.verdict.value} {f.probability:.3f}" for f in others]
        about += [f"{region}: no specialist" for region in outcome.unexamined]
        about += [flag.name for flag in outcome.flags]
        return _Row(self.total, leading.verdict, leading.probability, name, "; ".join(about))


def _subject(finding: FractureCall) -> str:
    """``hand fracture``, or ``any fracture`` for a specialist of all regions."""
    place = "any" if finding.region == ANY_REGION else finding.region
    return f"{place} {finding.target}"


def _worst_first(row: _Row) -> tuple[int, float, int]:
    return _GRAVITY.index(row.answer), -row.probability, row.place
