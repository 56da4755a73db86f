"""``fxpipe run``: judges files and writes the results."""

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
from ..engine import run
from ..io.own_output import TABLE
from ..outcome import Outcome
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
from ._malloc_arenas import limit_malloc_arenas
from ._output_options import (
    asked_outputs,
    check_apart,
    check_writable,
    lock_output,
    make_folders,
    output_options,
)
from ._paths import PathOption
from ._resume import Stopped, about, plan, resume_message, stop_message, stoppable
from ._weights_folder import default_weights, weights_line

_FOLDER = PathOption()


@click.command(name="run")
@click.option(
    "--input",
    "sources",
    type=_FOLDER,
    multiple=True,
    required=True,
    help="A file or a folder; repeatable, read in the given order.",
)
@click.option(
    "--output",
    type=_FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder for results.csv, results.jsonl and, with studies, studies.csv. It is created if "
    "missing; files of a finished run are replaced.",
)
@click.option(
    "--weights",
    type=_FOLDER,
    envvar="FXPIPE_WEIGHTS",
    help="Folder with a manifest.json.  [env: FXPIPE_WEIGHTS; default: ./weights]",
)
@click.option("--device", type=click.Choice(get_args(Device)), help="Where the networks run.")
@click.option("--batch-size", type=int, help="Number of pictures per batch of the trunk.")
@click.option(
    "--workers", type=int, help="Number of files to read in parallel; 0 for one per core."
)
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
    help="Whether the outputs contain patient, accession number and DICOM UIDs.  [default: omit]",
)
@click.option("--config", "file", type=_FOLDER, help="TOML file with settings.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."
)
@click.option(
    "--resume/--restart",
    default=True,
    show_default=True,
    help="If OUTPUT contains an unfinished run of the same configuration: resume it, or start "
    "over. Without an unfinished run, both start a new one.",
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

    Every file gets a row, including unreadable and unsupported ones. Options override --set, and
    --set overrides --config. In the CSV, an apostrophe is put before a text that a spreadsheet
    would run as a formula.
    """
    logging_setup.configure(logging.INFO if verbose else logging.WARNING)
    limit_malloc_arenas()
    given = {key: value for key, value in options.items() if value is not None}
    config = load(RunConfig, file, settings, given)
    inputs = inputs_of(sources)
    check_apart(inputs, output, config)
    root = inputs.root
    studies = studies_by(config.studies, root)
    left_out: dict[Path, None] = {}
    reader = ctx.with_resource(open_reader(config))  # starts while the networks are opened
    # Raises for an empty folder before anything is opened or written.
    paths = inputs.files(output, left_out)
    folder = weights or default_weights()
    networks = load_bundles(folder, config)
    if not quiet:
        click.echo(weights_line(folder, networks))
    if networks.gate_warning:
        logging.getLogger(__name__).warning("%s", networks.gate_warning)

    summary = Summary(root, left_out)
    total = sum(1 for _ in inputs.files(output)) if visible() and not quiet else None
    outputs = asked_outputs(config)
    make_folders(outputs, config)
    with ExitStack() as stack:
        lock_output(stack, output)
        kept, unfinished = plan(output, about(inputs, networks, config), restart=not resume)
        check_writable(output, outputs)
        job = Job(output, root, networks, config, kept)
        writers = {one.name: one.open(job) for one in outputs if one.resume is Resume.RECOUNT}
        remaining = paths
        progress = stack.enter_context(on_stderr(total, quiet))
        if unfinished:
            remaining = keep(
                islice(read(output), 1, None), paths, output, root, config.reader_threads,
                partial(_recount, studies, summary, dict(writers), progress), kept,
            )  # fmt: skip
            if not quiet:
                click.echo(resume_message(output, kept), err=True)
        journal = stack.enter_context(Journal(output, root, kept.journal))
        stack.enter_context(_resumable(journal, ctx))
        for one in outputs:
            if one.name not in writers:
                writers[one.name] = one.open(job)
            stack.enter_context(writers[one.name])
        journal.follow(writers, kept.outputs)
        rendered = any(one.pictures for one in outputs)
        outcomes = run(
            remaining, networks, config, rendered=rendered, study_of=studies.key, reader=reader
        )
        # Closed before the writers, so that no thread still works when a stopped run ends.
        stack.enter_context(closing(outcomes))
        _write_all(outcomes, [*writers.values(), summary, journal], progress)
    studies.warn()
    if not quiet:
        lines = filter(None, (writer.summary for writer in writers.values()))
        summary.print_to(stdout_console(), output / TABLE, lines, networks.gate_warning)
    ctx.exit(1 if summary.failed else 0)


def _recount(
    studies: Studies,
    summary: Summary,
    writers: Mapping[str, Writer],
    progress: Progress,
    done: Done,
) -> None:
    """Count a file with rows that an earlier process wrote."""
    studies.key(done.path, None)
    for outcome, notes in zip(done.outcomes, done.notes, strict=True):
        summary.write(outcome)
        for name, writer in writers.items():
            writer.recount(outcome, notes.get(name))
    progress.advance()


@contextmanager
def _resumable(journal: Journal, ctx: click.Context) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, print that the run can be resumed."""
    try:
        with stoppable():
            yield
    except KeyboardInterrupt as stop:
        click.echo(stop_message(journal.files), err=True)
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
        if outcome.image.path != last:  # a file with several frames counts once
            last = outcome.image.path
            progress.advance()
