"""``fxpipe run``: files in, verdicts out."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from .. import log
from ..bundle import MANIFEST_NAME
from ..config import Device, RunConfig, load
from ..domain import Outcome
from ..errors import UsageError
from ..io.discover import discover
from ..orchestrator import run
from ..progress import Progress, on_stderr, visible
from ..report import ReportWriter
from ..report.csv_table import CsvWriter
from ..report.heatmaps import HeatmapWriter
from ..report.json_lines import JsonLinesWriter
from ..report.studies_table import StudiesWriter
from ..report.summary import Summary
from ..runtime.session import load_bundles
from ..studies import studies_by

_FOLDER = click.Path(path_type=Path)
STUDIES_TABLE = "studies.csv"


@click.command(name="run")
@click.option("--input", "source", type=_FOLDER, required=True, help="A file or a folder.")
@click.option(
    "--output",
    type=_FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder for results.csv, results.jsonl and, with studies, studies.csv; made when "
    "missing, files replaced.",
)
@click.option(
    "--weights",
    type=_FOLDER,
    envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)
@click.option("--device", type=click.Choice(get_args(Device)), help="Where the networks run.")
@click.option("--batch-size", type=int, help="Pictures that the trunk sees at once.")
@click.option("--workers", type=int, help="Threads that read ahead; 0 for one a core.")
@click.option("--operating-point", metavar="NAME", help="A decision rule stored in the bundles.")
@click.option(
    "--heatmaps",
    type=click.Choice(("none", "positive", "all")),
    help="Overlays in OUTPUT/heatmaps/: of positive and uncertain pictures, of all, or none.",
)
@click.option(
    "--identifiers",
    type=click.Choice(("omit", "keep")),
    help="Whether the outputs tell patient, accession and DICOM UIDs.  [default: omit]",
)
@click.option(
    "--studies",
    metavar="HOW",
    help="What pictures are one study, for studies.csv: auto (DICOM header, else MURA's folders), "
    "dicom, mura, folder, none, or TABLE.csv with columns path and study.  [default: auto]",
)
@click.option("--config", "file", type=_FOLDER, help="TOML file with settings.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."
)
@click.option("--quiet", is_flag=True, help="No progress and no summary; warnings remain.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    source: Path,
    output: Path,
    weights: Path | None,
    file: Path | None,
    settings: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Judge every picture of --input: which region, and is there a fracture?

    Every file gets a row, also those that cannot be read or show something else. Options stand
    above --set, --set above --config. A text in the CSV that a spreadsheet would run as a
    formula gets an apostrophe in front.
    """
    log.configure()
    # As TOML strings: an operating point that is called "1" stays a name.
    given = [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in options.items()
        if value is not None
    ]
    config = load(RunConfig, file, [*settings, *given])
    _check_apart(source, output)
    root = source if source.is_dir() else source.parent
    studies = studies_by(config.studies, root)
    paths = discover(source, exclude=output)
    first = next(paths)  # refuses an empty folder before anything is opened or written
    networks = load_bundles(weights or default_weights(), config)

    summary = Summary(root)
    total = sum(1 for _ in discover(source, exclude=output)) if visible() and not quiet else None
    table = _prepare_output(output)
    with ExitStack() as stack:
        by_study = StudiesWriter(output / STUDIES_TABLE, root, networks.study_points)
        writers = [*_writers(stack, table, root, config), stack.enter_context(by_study), summary]
        progress = stack.enter_context(on_stderr(total, quiet))
        rendered = config.heatmaps != "none"
        outcomes = run(
            chain([first], paths), networks, config, rendered=rendered, study_of=studies.key
        )
        _write_all(outcomes, writers, progress)
    studies.warn_unmet()
    if not quiet:
        summary.print_to(stdout_console(), table, by_study.told)
    ctx.exit(1 if summary.failed else 0)


def _writers(stack: ExitStack, table: Path, root: Path, config: RunConfig) -> list[ReportWriter]:
    """Everything that is written picture by picture."""
    writers: list[ReportWriter] = [
        stack.enter_context(CsvWriter(table, root)),
        stack.enter_context(JsonLinesWriter(table.with_suffix(".jsonl"), root)),
    ]
    if config.heatmaps != "none":
        writers.append(HeatmapWriter(table.parent, config.contour, config.opacity))
    return writers


def _write_all(
    outcomes: Iterator[Outcome], writers: Iterable[ReportWriter], progress: Progress
) -> None:
    last = None
    for outcome in outcomes:
        for writer in writers:
            writer.write(outcome)
        if outcome.image.path != last:  # the frames of one file count once
            last = outcome.image.path
            progress.advance()


def _check_apart(source: Path, output: Path) -> None:
    """Results in the folder that is read would be input of the next run."""
    if source.is_dir() and output.resolve() == source.resolve():
        raise UsageError(f"--output {output} is the input folder", "name another --output")


def _prepare_output(output: Path) -> Path:
    """Make the folder; the path of the table in it."""
    table = output / "results.csv"
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path in (table, table.with_suffix(".jsonl"), output / STUDIES_TABLE):
            path.touch()
    except OSError as error:
        raise UsageError(
            f"--output {output}: cannot be written: {error.strerror}", "name another --output"
        ) from error
    return table


def default_weights() -> Path:
    """``./weights``, or the folder beside the packages of a source checkout."""
    here = Path("weights")
    beside = Path(__file__).resolve().parents[2] / "weights"
    return next((f for f in (here, beside) if (f / MANIFEST_NAME).exists()), here)


def stdout_console() -> Console:
    """A console that prints any file name, whatever the terminal's encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console()
