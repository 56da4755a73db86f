"""``fxpipe evaluate``: measures the exported bundles on a table of pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import logging_setup
from ..bundle import Precision
from ..config import Device, RunConfig, load
from ..errors import UsageError
from ..progress import on_stderr
from ..report.summary import INTENDED_USE
from ..runtime.session import load_bundles
from ._console import stdout_console
from ._extras import needs
from ._paths import PathOption
from ._weights_folder import default_weights, weights_line
from .calibrate import STUDY_BY

if TYPE_CHECKING:
    from stages.evaluation.evaluate import Evaluation

_PATH = PathOption()


@click.command(name="evaluate")
@click.option(
    "--index",
    "source",
    type=PathOption(dir_okay=False),
    default=Path("index.csv"),
    show_default=True,
    help="Table made by `fxpipe index`.",
)
@click.option(
    "--weights",
    type=_PATH,
    envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)
@click.option(
    "--output",
    type=_PATH,
    default=Path("evaluation"),
    show_default=True,
    help="Folder for the page, the figures and every prediction; existing files are replaced.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="test",
    show_default=True,
    help="Rows of the table; all: train, val and test.",
)
@click.option("--with-excluded", is_flag=True, help="Include the excluded rows.")
@click.option("--operating-point", metavar="NAME", help="A decision rule stored in the bundles.")
@click.option(
    "--prevalence",
    "prevalences",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    metavar="P",
    help="Also compute PPV and NPV for this share of positives; repeatable.",
)
@click.option("--device", type=click.Choice(get_args(Device)), help="Where the networks run.")
@click.option(
    "--precision",
    type=click.Choice(["auto", *(p.value for p in Precision)]),
    help="Exported precision to measure.",
)
@click.option("--batch-size", type=int, help="Number of pictures per batch of the trunk.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True,
    help="Seed of the bootstrap.",
)  # fmt: skip
@STUDY_BY
@click.option(
    "--shifts", is_flag=True,
    help="Also measure under every shift of a fixed suite: crop, rotation, blur, print …",
)  # fmt: skip
@click.option("--only-shifts", multiple=True, metavar="NAME", help="Only this shift; repeatable.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N",
    help="Under shift, only the N pictures that come first by SHA-256.",
)  # fmt: skip
@click.option(
    "--show", type=click.Path(path_type=Path, dir_okay=False), metavar="PNG",
    help="Only draw the shifts on four pictures of the split into this file; measure nothing.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."
)
@click.option("--quiet", is_flag=True, help="No progress and no figures; warnings remain.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    source: Path,
    weights: Path | None,
    output: Path,
    split: Any,
    with_excluded: bool,
    prevalences: tuple[float, ...],
    seed: int,
    study_by: Any,
    shifts: bool,
    only_shifts: tuple[str, ...],
    limit: int | None,
    show: Path | None,
    settings: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Measure exported bundles on the pictures of a table, judged as in `fxpipe run`.

    Every figure has a 95 % interval from a bootstrap over groups, and two baselines: the majority
    class, and the label of the most similar training picture. --output gets index.html,
    evaluation.json, CSV tables, plots, and predictions.csv with one row per picture, from which
    each figure can be recomputed. Exit code 1: some pictures could not be read; they count as
    failed.
    """
    logging_setup.configure()
    if not shifts and (only_shifts or limit or show):
        raise click.UsageError("--only-shifts, --limit and --show need --shifts")
    with needs("evaluate"):
        from stages.data.index import read_index
        from stages.evaluation.evaluate import EvaluationRequest, chosen_rows, evaluate
        from stages.evaluation.shift_sheet import draw_contact_sheet
        from stages.evaluation.under_shift import select_shifts
    given = {key: value for key, value in options.items() if value is not None}
    config = load(RunConfig, None, settings, given)
    suite = select_shifts(only_shifts, limit) if shifts else None
    request = EvaluationRequest(
        split, with_excluded, tuple(dict.fromkeys(prevalences)), seed, study_by, suite
    )
    index = read_index(source)
    samples = chosen_rows(index, request)
    if show:
        click.echo(f"{show}: every shift of {draw_contact_sheet(samples, show)} pictures")
        return
    rows = len(samples)
    under_shift = len(suite.names) * min(rows, suite.limit or rows) if suite else 0
    folder = weights or default_weights()
    networks = load_bundles(folder, config)
    _prepare(output)
    if not quiet:
        click.echo(weights_line(folder, networks))
        others = Counter(sample.split for sample in index.samples)
        counts = ", ".join(f"{count} {name}" for name, count in others.items())
        click.echo(f"{source}: {rows} pictures of split {split}; the table has {counts}")
    total = rows + len(index.of("train")) + under_shift
    with on_stderr(total, quiet, "pictures") as progress:
        evaluation = evaluate(index, networks, config, request, output, progress)
    if not quiet:
        _print(evaluation, output)
    ctx.exit(1 if evaluation.facts["failed"] else 0)


def _prepare(output: Path) -> None:
    """Make the folder, and check before any computation that it can be written to."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "predictions.csv").touch()
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror}", "name another --output"
        ) from error


def _print(evaluation: Evaluation, output: Path) -> None:
    """Print the main figures, the counts of outcomes, and the path of the page."""
    from stages.evaluation.header import header_note
    from stages.evaluation.headlines import FOOTNOTE, headlines, number, study_note, words
    from stages.evaluation.limb import limb_note

    console = stdout_console()
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("figure", overflow="fold")
    for name in ("fxpipe [95 %]", "majority", "look-up", "n (positive)"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in headlines(evaluation.figures):
        cells = (line.name, words(line.network), number(line.majority), number(line.look_up))
        table.add_row(*(Text(cell) for cell in (*cells, line.of)))
    console.print(table)
    console.print(Text(FOOTNOTE), soft_wrap=True)
    if evaluation.figures["header"] is not None:
        console.print(_by_header(evaluation))
    console.print(Text(header_note(evaluation.figures, evaluation.facts)), soft_wrap=True)
    if evaluation.figures["studies"] is not None:
        console.print(_by_study(evaluation))
    console.print(Text(limb_note(evaluation.figures["limb"])), soft_wrap=True)
    console.print(Text(study_note(evaluation.facts)), soft_wrap=True)
    console.print(_by_gate(evaluation))
    if evaluation.figures["shifts"] is not None:
        _print_shifts(console, evaluation)
    ends = evaluation.figures["end_to_end"]["all"]
    counts = ", ".join(f"{count} {name}" for name, count in ends["counts"].items())
    refused = ", ".join(f"{count} {worth}" for worth, count in ends["refused"].items() if count)
    detail = f" (unsupported: {refused})" if refused else ""
    console.print(Text(f"{ends['pictures']} in all: {counts}{detail}"), soft_wrap=True)
    seen, other = (evaluation.facts[name] for name in ("seen_in_training", "another_question"))
    for sentence in ("" if seen["status"] == "no" else seen["words"], other):
        if sentence:
            console.print(Text(sentence), soft_wrap=True)
    console.print(Text(f"read {output / 'index.html'}"), soft_wrap=True)
    console.print(Text(INTENDED_USE), soft_wrap=True)


def _by_gate(evaluation: Evaluation) -> Table | Text:
    """Pictures that the density gate and the router refuse, or why that was not measured."""
    from stages.evaluation.gate import SCORES
    from stages.evaluation.headlines import words

    figures = evaluation.figures["gate"]
    if figures is None:
        return Text(f"Density gate: not measured. {evaluation.facts['no_gate']}")
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("refused by", overflow="fold")
    for name in figures["refused"]:
        table.add_column(name, justify="right", no_wrap=True)
    parts = figures["refused"].values()
    for refuser in ("gate", "router", "both", "either"):
        counts = (f"{part['counts'][refuser]} of {part['pictures']}" for part in parts)
        table.add_row(Text(refuser), *(Text(count) for count in counts))
    counts = (
        f"{figures['far'][name]['count']} of {part['pictures']}"
        for name, part in figures["refused"].items()
    )
    table.add_row(Text("neither, but far from training"), *(Text(count) for count in counts))
    for key, name in SCORES.items():
        table.add_row(Text(f"AUC by {name}"), Text(words(figures["auc"][key])), "")
    return table


def _print_shifts(console: Console, evaluation: Evaluation) -> None:
    """Print one line per shift, unchanged pictures first and the mean last, in several tables."""
    from stages.evaluation.headlines import words
    from stages.evaluation.under_shift import panels, shift_note

    for heads, lines in panels(evaluation.figures["shifts"]):
        table = Table(box=box.SIMPLE, show_edge=False, padding=0)  # fits in 80 columns
        table.add_column("shift", no_wrap=True)
        for head in heads:
            table.add_column(head, justify="right")
        for name, estimates in lines:
            cells = (words(each) if each.value is not None else "–" for each in estimates)
            table.add_row(name, *(Text(cell) for cell in cells), end_section=name == lines[-2][0])
        console.print(table, "")
    note = shift_note(evaluation.figures["shifts"], evaluation.facts["pictures"])
    console.print(Text(note), soft_wrap=True)


def _by_study(evaluation: Evaluation) -> Table:
    """Figures of studies next to those of their pictures."""
    from stages.evaluation.headlines import study_lines, words

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("figure", overflow="fold")
    # Widths instead of no_wrap: the reason of an undefined figure is long and must wrap.
    for name, width in (("pictures [95 %]", 20), ("studies [95 %]", 21), ("n (positive)", 12)):
        table.add_column(name, justify="right", width=width)
    for line in study_lines(evaluation.figures):
        pictures = "" if line.pictures is None else words(line.pictures)
        cells = line.name, pictures, words(line.studies), line.of
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _by_header(evaluation: Evaluation) -> Table:
    """Routing by the pixels alone compared with routing that uses the header."""
    from stages.evaluation.header import BY, header_lines
    from stages.evaluation.headlines import words

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("pictures with a header", overflow="fold")
    for name in (*(f"{by} [95 %]" for by in BY), "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in header_lines(evaluation.figures):
        cells = line.name, words(line.alone), words(line.combined), str(line.of)
        table.add_row(*(Text(cell) for cell in cells))
    return table
