"""``fxpipe evaluate``: the bundles as shipped, measured on a table."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich import box
from rich.table import Table
from rich.text import Text

from .. import log
from ..bundle import Precision
from ..config import Device, RunConfig, load
from ..errors import UsageError
from ..progress import on_stderr
from ..report.summary import INTENDED_USE
from ..runtime.session import load_bundles
from .calibrate import STUDY_BY
from .extras import needs
from .paths import PathOption
from .run import default_weights, stdout_console, weights_line

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
    help="Folder for the page, the figures and every prediction; files replaced.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="test",
    show_default=True,
    help="Rows of the table; all: train, val and test.",
)
@click.option("--with-excluded", is_flag=True, help="Take the excluded rows too.")
@click.option("--operating-point", metavar="NAME", help="A decision rule stored in the bundles.")
@click.option(
    "--prevalence",
    "prevalences",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    metavar="P",
    help="Share of positives where PPV and NPV are wanted too; repeatable.",
)
@click.option("--device", type=click.Choice(get_args(Device)), help="Where the networks run.")
@click.option(
    "--precision",
    type=click.Choice(["auto", *(p.value for p in Precision)]),
    help="Which of the exported precisions.",
)
@click.option("--batch-size", type=int, help="Pictures that the trunk sees at once.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap."
)
@STUDY_BY
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
    settings: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Measure exported bundles on the pictures of a table, as `fxpipe run` would judge them.

    Every figure has a 95 % interval from a bootstrap over groups, and beside it what the
    majority class and the label of the most similar training picture reach. In --output:
    index.html to read, evaluation.json, CSV tables, plots, and predictions.csv with one row for
    every picture, from which each figure can be computed anew. Exit code 1: some pictures could
    not be read; they count as failed.
    """
    log.configure()
    with needs("train"):
        from stages.data.index import read_index
        from stages.evaluation.evaluate import Asked, chosen_rows, evaluate
    given = [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in options.items()
        if value is not None
    ]
    config = load(RunConfig, None, [*settings, *given])
    asked = Asked(split, with_excluded, tuple(dict.fromkeys(prevalences)), seed, study_by)
    index = read_index(source)
    rows = len(chosen_rows(index, asked))
    folder = weights or default_weights()
    networks = load_bundles(folder, config)
    _prepare(output)
    if not quiet:
        click.echo(weights_line(folder, networks))
        others = Counter(sample.split for sample in index.samples)
        told = ", ".join(f"{count} {name}" for name, count in others.items())
        click.echo(f"{source}: {rows} pictures of split {split}; the table has {told}")
    with on_stderr(rows + len(index.of("train")), quiet, "pictures") as progress:
        evaluation = evaluate(index, networks, config, asked, output, progress)
    if not quiet:
        _print(evaluation, output)
    ctx.exit(1 if evaluation.facts["failed"] else 0)


def _prepare(output: Path) -> None:
    """Make the folder, and be sure that it can be written to before anything is computed."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "predictions.csv").touch()
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror}", "name another --output"
        ) from error


def _print(evaluation: Evaluation, output: Path) -> None:
    """The headlines, the ends and where the rest is."""
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
    if evaluation.figures["studies"] is not None:
        console.print(_by_study(evaluation))
    console.print(Text(limb_note(evaluation.figures["limb"])), soft_wrap=True)
    console.print(Text(study_note(evaluation.facts)), soft_wrap=True)
    ends = evaluation.figures["end_to_end"]["all"]
    counts = ", ".join(f"{count} {name}" for name, count in ends["counts"].items())
    refused = ", ".join(f"{count} {worth}" for worth, count in ends["refused"].items() if count)
    told = f" (unsupported: {refused})" if refused else ""
    console.print(Text(f"{ends['pictures']} in all: {counts}{told}"), soft_wrap=True)
    seen, other = (evaluation.facts[name] for name in ("seen_in_training", "another_question"))
    for sentence in ("" if seen["status"] == "no" else seen["words"], other):
        if sentence:
            console.print(Text(sentence), soft_wrap=True)
    console.print(Text(f"read {output / 'index.html'}"), soft_wrap=True)
    console.print(Text(INTENDED_USE), soft_wrap=True)


def _by_study(evaluation: Evaluation) -> Table:
    """Studies beside their pictures."""
    from stages.evaluation.headlines import study_lines, words

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("figure", overflow="fold")
    # Widths in place of no_wrap: what is undefined says why, and would push the name out.
    for name, width in (("pictures [95 %]", 20), ("studies [95 %]", 21), ("n (positive)", 12)):
        table.add_column(name, justify="right", width=width)
    for line in study_lines(evaluation.figures):
        pictures = "" if line.pictures is None else words(line.pictures)
        cells = line.name, pictures, words(line.studies), line.of
        table.add_row(*(Text(cell) for cell in cells))
    return table
