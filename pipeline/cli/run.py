"""``fxpipe run``: files in, verdicts out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import click

from .. import logging_setup
from ..config import Device, RunConfig, load
from ..domain import Outcome
from ..engine import run
from ..io.own_output import TABLE
from ..progress import Progress, on_stderr, visible
from ..reading.open_reader import open_reader
from ..report import ReportWriter, Writer
from ..report.journal import Journal, read
from ..report.outputs import Resume
from ..report.resume import Done, keep
from ..report.summary import Summary
from ..report.writer import Job
from ..runtime.session import load_bundles
from ..studies import Studies, studies_by
from ._console import stdout_console
from ._inputs import inputs_of
from ._malloc_arenas import few_arenas
from ._output_options import (
    asked_outputs,
    check_apart,
    check_writable,
    hold,
    make_folders,
    output_options,
)
from ._paths import PathOption
from ._resume import Stopped, about, plan, stoppable, stopped, told
from ._weights_folder import default_weights, weights_line

_FOLDER = PathOption()


@click.command(name="run")
@click.option(
    "--input",
    "sources",
    type=_FOLDER,
    multiple=True,
    required=True,
    help="A file or a folder; repeatable, read in the order given.",
)
@click.option(
    "--output",
    type=_FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder for results.csv, results.jsonl and, with studies, studies.csv; made when "
    "missing, files of a finished run replaced.",
)
@click.option(
    "--weights",
    type=_FOLDER,
    envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)
@click.option("--device", type=click.Choice(get_args(Device)), help="Where the networks run.")
@click.option("--batch-size", type=int, help="Pictures that the trunk sees at once.")
@click.option("--workers", type=int, help="Files that are read at once; 0 for one a core.")
@click.option(
    "--timeout-per-file",
    "timeout_per_file_s",
    type=float,
    metavar="SECONDS",
    help="A file that takes longer to read gets a failed row.  [default: 60]",
)
@click.option("--operating-point", metavar="NAME", help="A decision rule stored in the bundles.")
@output_options
@click.option(
    "--identifiers",
    type=click.Choice(("omit", "keep")),
    help="Whether the outputs tell patient, accession and DICOM UIDs.  [default: omit]",
)
@click.option("--config", "file", type=_FOLDER, help="TOML file with settings.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."
)
@click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="What to do where OUTPUT holds an unfinished run of the same configuration: go on where "
    "it stopped, or begin anew. Where it holds none, both begin.",
)
@click.option("--quiet", is_flag=True, help="No progress and no summary; warnings remain.")
@click.option("--verbose", is_flag=True, help="Also log the device, and worker processes that end.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    sources: tuple[Path, ...],
    output: Path,
    weights: Path | None,
    file: Path | None,
    settings: tuple[str, ...],
    resume: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Judge every picture of --input: which region, and is there a fracture?

    Every file gets a row, also those that cannot be read or show something else. Options stand
    above --set, --set above --config. A text in the CSV that a spreadsheet would run as a
    formula gets an apostrophe in front.
    """
    logging_setup.configure(logging.INFO if verbose else logging.WARNING)
    few_arenas()
    given = {key: value for key, value in options.items() if value is not None}
    config = load(RunConfig, file, settings, given)
    inputs = inputs_of(sources)
    check_apart(inputs, output, config)
    root = inputs.root
    studies = studies_by(config.studies, root)
    left_out: dict[Path, None] = {}
    reader = ctx.with_resource(open_reader(config))  # it starts while the networks are opened
    # Refuses an empty folder before anything is opened or written.
    paths = inputs.files(output, left_out)
    folder = weights or default_weights()
    networks = load_bundles(folder, config)
    if not quiet:
        click.echo(weights_line(folder, networks))
    if networks.ungated:
        logging.getLogger(__name__).warning("%s", networks.ungated)

    summary = Summary(root, left_out)
    total = sum(1 for _ in inputs.files(output)) if visible() and not quiet else None
    asked = asked_outputs(config)
    make_folders(asked, config)
    with ExitStack() as stack:
        hold(stack, output)
        kept, unfinished = plan(output, about(inputs, networks, config), restart=not resume)
        check_writable(output, asked)
        job = Job(output, root, networks, config, kept)
        writers = {one.name: one.open(job) for one in asked if one.resume is Resume.RECOUNT}
        left = paths
        progress = stack.enter_context(on_stderr(total, quiet))
        if unfinished:
            left = keep(
                islice(read(output), 1, None), left, output, root, config.reader_threads,
                partial(_recount, studies, summary, dict(writers), progress), kept,
            )  # fmt: skip
            if not quiet:
                click.echo(told(output, kept), err=True)
        journal = stack.enter_context(Journal(output, root, kept.journal))
        stack.enter_context(_resumable(journal, ctx))
        for one in asked:
            if one.name not in writers:
                writers[one.name] = one.open(job)
            stack.enter_context(writers[one.name])
        journal.follow(writers, kept.outputs)
        rendered = any(one.pictures for one in asked)
        outcomes = run(
            left, networks, config, rendered=rendered, study_of=studies.key, reader=reader
        )
        # Before the writers: what stops the run must find no thread at work when it ends.
        stack.enter_context(closing(outcomes))
        _write_all(outcomes, [*writers.values(), summary, journal], progress)
    studies.warn()
    if not quiet:
        lines = filter(None, (writer.summary for writer in writers.values()))
        summary.print_to(stdout_console(), output / TABLE, lines, networks.ungated)
    ctx.exit(1 if summary.failed else 0)


def _recount(
    studies: Studies,
    summary: Summary,
    writers: Mapping[str, Writer],
    progress: Progress,
    done: Done,
) -> None:
    """Take into account a file whose rows an earlier process wrote."""
    studies.key(done.path, None)
    for outcome, notes in zip(done.outcomes, done.notes, strict=True):
        summary.write(outcome)
        for name, writer in writers.items():
            writer.recount(outcome, notes.get(name))
    progress.advance()


@contextmanager
def _resumable(journal: Journal, ctx: click.Context) -> Iterator[None]:
    """Say on being stopped that the run can go on."""
    try:
        with stoppable():
            yield
    except KeyboardInterrupt as stop:
        click.echo(stopped(journal.files), err=True)
        if isinstance(stop, Stopped):
            ctx.exit(Stopped.exit_code)
        raise


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
